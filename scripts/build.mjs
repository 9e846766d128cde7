// node scripts/build.mjs [typescript | native]: compiles TypeScript into dist/, the native engine into native/build/, or both.
// npm runs `native` wherever the package is installed (`install`), and `typescript` in a checkout (`prepare`).
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');

function run(what, args) {
  const result = spawnSync(process.execPath, args, { cwd: root, stdio: ['ignore', 2, 2] });
  if (result.status === 0) return;
  console.error(`error MB_BUILD_FAILED: ${what} failed (its output is above)`);
  process.exit(result.status ?? 1);
}

function typescript() {
  try {
    return join(dirname(createRequire(import.meta.url).resolve('typescript/package.json')), 'bin', 'tsc');
  } catch {
    return undefined;
  }
}

// npx links this folder into its cache before it runs our command, and so calls both again.
const outputs = ['dist/src/index.js', 'native/build/mbridge.node'];
if (process.env.npm_command === 'exec' && outputs.every((file) => existsSync(join(root, file)))) process.exit(0);

const [only] = process.argv.slice(2);
if (only !== 'native') {
  const tsc = typescript();
  if (tsc !== undefined) {
    run('tsc', [tsc, '-p', join(root, 'tsconfig.build.json')]);
  } else if (!existsSync(join(root, 'dist', 'src', 'index.js'))) {
    console.error('error MB_BUILD_TYPESCRIPT: typescript is not installed and dist/ is not built\n  hint: run npm ci');
    process.exit(4);
  }
}
if (only !== 'typescript') run('the native build', [join(root, 'scripts', 'build-native.mjs')]);

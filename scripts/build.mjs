// node scripts/build.mjs [typescript]: compiles TypeScript into dist/ and the native engine into native/build/, or the
// first alone. npm runs it in a checkout (`prepare`). An installed package runs nothing: it brings both (scripts/prebuild.mjs), and `mbridge build` makes an engine
// where the one that it brings does not serve.
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { runTool, SHOWN } from './tools.mjs';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');

function run(what, args) {
  const { failed, exitCode } = runTool(process.execPath, args, { cwd: root, stdio: SHOWN });
  if (!failed) return;
  console.error(`error MB_BUILD_FAILED: ${what} failed (its output is above)`);
  process.exit(exitCode ?? 1);
}

function compiler() {
  try {
    return join(dirname(createRequire(import.meta.url).resolve('typescript/package.json')), 'bin', 'tsc');
  } catch {
    return undefined;
  }
}

const npm = process.env.npm_command;
// npx links this folder into its cache before it runs our command, and so calls `prepare` again.
const outputs = ['dist/src/index.js', 'native/build/mbridge.node'];
if (npm === 'exec' && outputs.every((file) => existsSync(join(root, file)))) process.exit(0);

const [only] = process.argv.slice(2);
const tsc = compiler();
if (tsc !== undefined) {
  run('tsc', [tsc, '-p', join(root, 'tsconfig.build.json')]);
  run('the page of the runs', [join(root, 'scripts', 'page.mjs')]);
} else if (!existsSync(join(root, 'dist', 'src', 'index.js'))) {
  console.error('error MB_BUILD_TYPESCRIPT: typescript is not installed and dist/ is not built\n  hint: run npm ci');
  process.exit(4);
}
// A package is packed with the engine that was built for it.
if (only !== 'typescript' && npm !== 'pack') run('the native build', [join(root, 'scripts', 'build-native.mjs')]);

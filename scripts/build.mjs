// node scripts/build.mjs [typescript | native]: compiles TypeScript into dist/, the native engine into native/build/, or both.
// npm runs `native` wherever the package is installed (`install`), and `typescript` in a checkout (`prepare`).
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { execaSync } from 'execa';
import { findNvcc } from './tools.mjs';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');

function run(what, args) {
  const { failed, exitCode } = execaSync(process.execPath, args, {
    cwd: root,
    reject: false,
    stdio: ['ignore', 2, 2],
    timeout: 2 * 3_600_000,
  });
  if (!failed) return;
  console.error(`error MB_BUILD_FAILED: ${what} failed (its output is above)`);
  process.exit(exitCode ?? 1);
}

function typescript() {
  try {
    return join(dirname(createRequire(import.meta.url).resolve('typescript/package.json')), 'bin', 'tsc');
  } catch {
    return undefined;
  }
}

/**
 * Whether the engine that the package brought (scripts/prebuild.mjs) serves here: it loads, and speaks this package's ABI.
 * A checkout builds its own, and so does an installation where nvcc is (for CUDA) or a build is asked for.
 */
function prebuiltServes() {
  const addon = join(root, 'prebuilds', `${process.platform}-${process.arch}`, 'mbridge.node');
  const { MBRIDGE_CUDA: cuda, MBRIDGE_PREBUILT: prebuilt } = process.env;
  if (existsSync(join(root, 'src')) || !existsSync(addon) || prebuilt === '0') return false;
  if (cuda === '1' || findNvcc() !== undefined) return false;
  const loader = pathToFileURL(join(root, 'dist', 'src', 'engine', 'load.js')).href;
  const program = `(await import(${JSON.stringify(loader)})).loadBinding({ MBRIDGE_NATIVE: ${JSON.stringify(addon)} })`;
  const { failed, stderr } = execaSync(process.execPath, ['--input-type=module', '-e', program], {
    reject: false,
    timeout: 60_000,
  });
  if (failed) {
    const why = /^.*MbridgeError: (.*)$/m.exec(stderr)?.[1] ?? stderr.trim().split('\n').at(-1);
    console.error(`the engine that the package brings does not serve here (${why}): building one`);
  } else {
    console.error('native engine: the CPU engine that the package brings (for CUDA, run mbridge build where nvcc is)');
  }
  return !failed;
}

// npx links this folder into its cache before it runs our command, and so calls both again.
const outputs = ['dist/src/index.js', 'native/build/mbridge.node'];
if (process.env.npm_command === 'exec' && outputs.every((file) => existsSync(join(root, file)))) process.exit(0);

const [only] = process.argv.slice(2);
if (only !== 'native') {
  const tsc = typescript();
  if (tsc !== undefined) {
    run('tsc', [tsc, '-p', join(root, 'tsconfig.build.json')]);
    run('the page of the runs', [join(root, 'scripts', 'page.mjs')]);
  } else if (!existsSync(join(root, 'dist', 'src', 'index.js'))) {
    console.error('error MB_BUILD_TYPESCRIPT: typescript is not installed and dist/ is not built\n  hint: run npm ci');
    process.exit(4);
  }
}
if (only !== 'typescript' && !prebuiltServes()) run('the native build', [join(root, 'scripts', 'build-native.mjs')]);

// node scripts/build-native.mjs [cuda | tests]: builds native/ with CMake into native/build: mbridge.node and, where nvcc is
// found, libmbridge_cuda.so; that one alone; or the programs that only tests run. Environment: CXX, MBRIDGE_CUDA (0 never,
// 1 must, unset if nvcc is found), MBRIDGE_CUDA_ARCHS (passed to CMake), MBRIDGE_BUILD_JOBS.
import { accessSync, constants, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { findFirst, findNvcc, runTool, SHOWN, version } from './tools.mjs';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const output = join(root, 'native', 'build');
const binary = join(output, 'cmake');
const env = process.env;
const only = process.argv[2];
/** What is built, by the first argument. */
const TARGETS = { cuda: 'mbridge_cuda', tests: 'mbridge_tests' };

function stop(code, message, hint) {
  console.error(`error ${code}: ${message}\n  hint: ${hint}`);
  process.exit(4);
}

/** Folders of the npm packages with Node's headers, which the addon alone needs. An installed package does not bring them. */
function headerFolders() {
  const names = ['node-addon-api', 'node-api-headers'];
  try {
    return names.map((name) => dirname(createRequire(import.meta.url).resolve(`${name}/package.json`)));
  } catch (error) {
    if (only === 'cuda') return ['', ''];
    const { devDependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
    const wanted = names.map((name) => `${name}@${devDependencies[name]}`).join(' ');
    return stop(
      'MB_BUILD_HEADERS',
      `the npm packages ${names.join(' and ')}, headers that the engine is built with, are not installed (${error.code})`,
      existsSync(join(root, 'src'))
        ? 'run npm ci'
        : `npm install ${wanted} beside mbridge (with -g where mbridge is global)`,
    );
  }
}

/** The folder of what is built; a package may lie where its user cannot write. */
function makeOutput() {
  try {
    mkdirSync(output, { recursive: true });
    accessSync(output, constants.W_OK);
  } catch (error) {
    stop(
      'MB_BUILD_FOLDER',
      `${output} cannot be written (${error.code})`,
      'build as the user who installed mbridge, or install it in a project of your own',
    );
  }
}

function run(args, what, hint) {
  const { failed } = runTool('cmake', args, { stdio: SHOWN });
  if (failed) stop('MB_BUILD_FAILED', `${what} failed (its output is above)`, hint);
}

/** Two builds in one folder spoil it: the second waits for the first, whose process id the lock holds. */
function lock(path) {
  for (;;) {
    try {
      writeFileSync(path, String(process.pid), { flag: 'wx' });
      process.on('exit', () => rmSync(path, { force: true }));
      return;
    } catch (error) {
      if (error.code !== 'EEXIST') throw error;
    }
    if (!running(path)) rmSync(path, { force: true });
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 200);
  }
}

/** Whether the process that a lock names is there; one that cannot be read (being written, removed) is taken to be. */
function running(path) {
  try {
    const pid = Number(readFileSync(path, 'utf8'));
    return pid === 0 || process.kill(pid, 0);
  } catch (error) {
    return error.code !== 'ESRCH';
  }
}

if (version('cmake') === undefined) {
  stop('MB_BUILD_CMAKE', 'cmake was not found', 'install CMake 3.20 or newer (apt install cmake)');
}
const compiler = findFirst(env.CXX ? [env.CXX] : ['c++', 'g++', 'clang++']);
if (compiler === undefined) {
  stop(
    'MB_BUILD_COMPILER',
    `no C++ compiler (${env.CXX ?? 'c++, g++, clang++'})`,
    'install g++ 11 or newer, or set CXX',
  );
}
const generator = version('ninja') === undefined ? 'Unix Makefiles' : 'Ninja';
if (generator !== 'Ninja' && version('make') === undefined) {
  stop('MB_BUILD_MAKE', 'neither ninja nor make was found', 'install ninja (apt install ninja-build)');
}

const [addonApi, headers] = headerFolders();
const nvcc = findNvcc(env);
if (nvcc === undefined && (env.MBRIDGE_CUDA === '1' || only === 'cuda')) {
  const asked = only === 'cuda' ? 'the CUDA engine is to be built' : 'MBRIDGE_CUDA=1';
  stop('MB_BUILD_NVCC', `${asked}, and nvcc was not found`, 'put nvcc on PATH or set CUDA_HOME');
}
makeOutput();
lock(join(output, '.lock'));

// CMake refuses to change generator, compiler or source folder of a configured tree: start it afresh then.
const cache = join(binary, 'CMakeCache.txt');
if (existsSync(cache)) {
  const text = readFileSync(cache, 'utf8');
  const kept =
    text.includes(`CMAKE_GENERATOR:INTERNAL=${generator}\n`) &&
    text.includes(`CMAKE_HOME_DIRECTORY:INTERNAL=${join(root, 'native')}\n`);
  if (!kept) rmSync(binary, { recursive: true });
}

const configure = [
  '-S',
  join(root, 'native'),
  '-B',
  binary,
  '-G',
  generator,
  '-DCMAKE_BUILD_TYPE=Release',
  `-DCMAKE_CXX_COMPILER=${compiler}`,
  `-DMBRIDGE_OUTPUT=${output}`,
  `-DNODE_ADDON_API_DIR=${addonApi}`,
  `-DNODE_API_HEADERS_DIR=${headers && join(headers, 'include')}`,
  `-DMBRIDGE_CUDA=${nvcc === undefined ? 'OFF' : 'ON'}`,
  ...(nvcc === undefined ? [] : [`-DCMAKE_CUDA_COMPILER=${nvcc}`]),
  `-DMBRIDGE_CUDA_ARCHS=${env.MBRIDGE_CUDA_ARCHS ?? ''}`,
];
const hint = nvcc === undefined ? 'fix what it names' : 'fix what it names, or build without CUDA: MBRIDGE_CUDA=0';
run(configure, 'cmake (configure)', hint);
const jobs = env.MBRIDGE_BUILD_JOBS ?? String(availableParallelism());
run(['--build', binary, '--target', TARGETS[only] ?? 'all', '--parallel', jobs], 'cmake --build', hint);

const cuda =
  nvcc === undefined ? (env.MBRIDGE_CUDA === '0' ? 'no CUDA (MBRIDGE_CUDA=0)' : 'no CUDA (nvcc not found)') : 'CUDA';
const built = {
  cuda: `CUDA engine built in ${output}`,
  tests: `native test programs built in ${output}: CPU, ${cuda}`,
};
console.error(built[only] ?? `native engine built in ${output}: CPU, ${cuda}`);

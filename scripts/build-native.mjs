// node scripts/build-native.mjs [tests]: builds native/ with CMake into native/build: mbridge.node and, where nvcc is found,
// libmbridge_cuda.so; or the programs that only tests run. Environment: CXX, MBRIDGE_CUDA (0 never, 1 must, unset if nvcc
// is found), MBRIDGE_CUDA_ARCHS (passed to CMake), MBRIDGE_BUILD_JOBS.
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { execaSync } from 'execa';
import { findFirst, findNvcc, version } from './tools.mjs';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const output = join(root, 'native', 'build');
const binary = join(output, 'cmake');
const env = process.env;

function stop(code, message, hint) {
  console.error(`error ${code}: ${message}\n  hint: ${hint}`);
  process.exit(4);
}

function packageFolder(name) {
  try {
    return dirname(createRequire(import.meta.url).resolve(`${name}/package.json`));
  } catch (error) {
    return stop(
      'MB_BUILD_HEADERS',
      `npm package ${name} is not installed (${error.code})`,
      'install the dependencies of mbridge: npm ci in a checkout',
    );
  }
}

function run(args, what, hint) {
  const { failed } = execaSync('cmake', args, { reject: false, stdio: ['ignore', 2, 2], timeout: 2 * 3_600_000 });
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

const addonApi = packageFolder('node-addon-api');
const headers = join(packageFolder('node-api-headers'), 'include');
const nvcc = findNvcc(env);
if (nvcc === undefined && env.MBRIDGE_CUDA === '1') {
  stop('MB_BUILD_NVCC', 'MBRIDGE_CUDA=1, and nvcc was not found', 'put nvcc on PATH or set CUDA_HOME');
}
mkdirSync(output, { recursive: true });
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
  `-DNODE_API_HEADERS_DIR=${headers}`,
  `-DMBRIDGE_CUDA=${nvcc === undefined ? 'OFF' : 'ON'}`,
  ...(nvcc === undefined ? [] : [`-DCMAKE_CUDA_COMPILER=${nvcc}`]),
  `-DMBRIDGE_CUDA_ARCHS=${env.MBRIDGE_CUDA_ARCHS ?? ''}`,
];
const hint = nvcc === undefined ? 'fix what it names' : 'fix what it names, or build without CUDA: MBRIDGE_CUDA=0';
run(configure, 'cmake (configure)', hint);
const tests = process.argv[2] === 'tests';
const jobs = env.MBRIDGE_BUILD_JOBS ?? String(availableParallelism());
const target = tests ? 'mbridge_tests' : 'all';
run(['--build', binary, '--target', target, '--parallel', jobs], 'cmake --build', hint);

const cuda =
  nvcc === undefined ? (env.MBRIDGE_CUDA === '0' ? 'no CUDA (MBRIDGE_CUDA=0)' : 'no CUDA (nvcc not found)') : 'CUDA';
console.error(`${tests ? 'native test programs' : 'native engine'} built in ${output}: CPU, ${cuda}`);

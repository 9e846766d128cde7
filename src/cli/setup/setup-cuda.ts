import { accessSync, constants, existsSync, mkdirSync, readdirSync, realpathSync, renameSync, rmSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { MbridgeError } from '../../base/errors.js';
import { installation } from '../../base/installation.js';
import { runCommand } from '../../base/run-command.js';
import { findCudaEngine } from '../../engine/find.js';
import { buildEngine } from './build-engine.js';

// The versions that were measured first; any later one of the same major version will do.
const PACKAGES = [
  { preferred: 'nvidia-cublas==13.1.*', any: 'nvidia-cublas>=13,<14', file: 'libcublasLt.so.13' },
  { preferred: 'nvidia-nccl-cu13==2.30.*', any: 'nvidia-nccl-cu13>=2.27,<3', file: 'libnccl.so.2' },
  { preferred: 'nvidia-cudnn-cu13==9.19.*', any: 'nvidia-cudnn-cu13>=9.14,<10', file: 'libcudnn.so.9' },
];
const VERSION_TIMEOUT_MS = 60_000;
const INSTALL_TIMEOUT_MS = 2 * 3_600_000;

function refuse(code: string, message: string, hint: string): MbridgeError {
  return new MbridgeError('environment', code, message, { hint });
}

/** The first command that runs pip. @throws MbridgeError MB_SETUP_PIP with what was tried */
async function findPip(): Promise<readonly [string, ...string[]]> {
  const candidates = [['python3', '-m', 'pip'], ['python', '-m', 'pip'], ['pip3'], ['uv', 'pip']] as const;
  const tried = [];
  for (const candidate of candidates) {
    const [command, ...args] = candidate;
    const { failure, stderr } = await runCommand(command, [...args, '--version'], { timeoutMs: VERSION_TIMEOUT_MS });
    if (failure === undefined) return candidate;
    tried.push(`${candidate.join(' ')}: ${stderr.trim().split('\n').at(-1) || failure}`);
  }
  throw refuse(
    'MB_SETUP_PIP',
    `no pip was found (${tried.join('; ')})`,
    'install it (apt install python3-pip), or install cuBLAS, NCCL and cuDNN otherwise and set MBRIDGE_CUDA_LIBS to their folder',
  );
}

/** Builds the CUDA engine where there is none. */
async function setUpEngine(): Promise<void> {
  const { path, from } = findCudaEngine();
  if (existsSync(path)) process.stderr.write(`CUDA engine: ${path} (${from})\n`);
  else await buildEngine('cuda');
}

/** Where the CUDA engine looks for libraries (native/cuda/libs/libs.h): `.cuda/` of the package that it lies in. */
function librariesOf(engine: string): string {
  return join(dirname(realpathSync(engine)), '..', '..', '.cuda');
}

/** @throws MbridgeError MB_SETUP_FOLDER where nothing can be written beside `target` */
function requireWritable(target: string): void {
  try {
    mkdirSync(dirname(target), { recursive: true });
    accessSync(dirname(target), constants.W_OK);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw refuse(
      'MB_SETUP_FOLDER',
      `${dirname(target)} cannot be written (${code})`,
      `run it as who installed mbridge, or into a folder of your own: ${installation().command} setup-cuda --into FOLDER`,
    );
  }
}

/**
 * `mbridge setup-cuda`: builds the CUDA engine where there is none, and installs cuBLAS, NCCL and cuDNN from NVIDIA's pip
 * packages where the engine looks for them; or these libraries alone, into `into`. Python is only used to install; nothing
 * of mbridge runs in it. What was there before stays until the new libraries are complete.
 * @throws MbridgeError MB_SETUP_*, MB_BUILD_*, exit 4
 */
export async function setupCuda(pipOptions: readonly string[], into?: string): Promise<void> {
  if (process.platform !== 'linux') {
    throw refuse(
      'MB_SETUP_PLATFORM',
      `CUDA packages are for Linux, this is ${process.platform}`,
      'use the CPU backend here',
    );
  }
  if (into === undefined) await setUpEngine();
  const target = into === undefined ? librariesOf(findCudaEngine().path) : resolve(into);
  requireWritable(target);
  const part = `${target}.part`;
  const pip = await findPip();
  try {
    await installInto(part, pip, pipOptions);
    rmSync(target, { recursive: true, force: true });
    renameSync(part, target);
  } finally {
    rmSync(part, { recursive: true, force: true });
  }
  const use = into === undefined ? '' : `; set MBRIDGE_CUDA_LIBS=${target} for runs`;
  process.stderr.write(
    `CUDA libraries installed in ${target}${use}; ${installation().command} doctor shows their versions\n`,
  );
}

async function installInto(
  folder: string,
  pip: readonly [string, ...string[]],
  pipOptions: readonly string[],
): Promise<void> {
  const install = async (requirements: readonly string[]): Promise<string | undefined> => {
    // One pip call for all: into the same folder, a second one would replace what the first installed.
    rmSync(folder, { recursive: true, force: true });
    const [command, ...first] = pip;
    const args = [...first, 'install', ...pipOptions, '--no-deps', '--target', folder, ...requirements];
    process.stderr.write(`${[command, ...args].join(' ')}\n`);
    return (await runCommand(command, args, { timeoutMs: INSTALL_TIMEOUT_MS, show: true })).failure;
  };
  const preferred = PACKAGES.map((entry) => entry.preferred);
  const any = PACKAGES.map((entry) => entry.any);
  if ((await install(preferred)) !== undefined) {
    process.stderr.write(`not all of ${preferred.join(', ')} are to be had; trying later ones\n`);
    const failure = await install(any);
    if (failure !== undefined) {
      throw refuse(
        'MB_SETUP_INSTALL',
        `pip could not install ${any.join(', ')}: ${failure} (its output is above)`,
        'check the network or the package index, and pass options on: setup-cuda --index-url URL',
      );
    }
  }
  const nvidia = join(folder, 'nvidia');
  const installed = existsSync(nvidia) ? readdirSync(nvidia) : [];
  const missing = PACKAGES.filter(({ file }) => !installed.some((name) => existsSync(join(nvidia, name, 'lib', file))));
  if (missing.length > 0) {
    throw refuse(
      'MB_SETUP_FILES',
      `pip reported success, but its packages hold no ${missing.map(({ file }) => file).join(', ')}`,
      'install the libraries otherwise and set MBRIDGE_CUDA_LIBS to the folder that holds them',
    );
  }
}

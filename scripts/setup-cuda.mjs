// npm run setup:cuda [-- pip options]: installs cuBLAS, NCCL and cuDNN from NVIDIA's pip packages into .cuda/, where the
// CUDA backend looks for them. Not needed where the system or MBRIDGE_CUDA_LIBS has them (`mbridge doctor` says). About
// 1.6 GB. Python is only used to install; nothing of mbridge runs in it.
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const target = join(dirname(fileURLToPath(import.meta.url)), '..', '.cuda');
const pipOptions = process.argv.slice(2);

// The versions that were measured first; any later one of the same major version will do.
const packages = [
  { preferred: 'nvidia-cublas==13.1.*', any: 'nvidia-cublas>=13,<14', file: 'libcublasLt.so.13' },
  { preferred: 'nvidia-nccl-cu13==2.30.*', any: 'nvidia-nccl-cu13>=2.27,<3', file: 'libnccl.so.2' },
  { preferred: 'nvidia-cudnn-cu13==9.19.*', any: 'nvidia-cudnn-cu13>=9.14,<10', file: 'libcudnn.so.9' },
];

function stop(code, message, hint) {
  console.error(`error ${code}: ${message}\n  hint: ${hint}`);
  process.exit(4);
}

/** The first command that runs pip, or an exit with what was tried. */
function findPip() {
  const candidates = [['python3', '-m', 'pip'], ['python', '-m', 'pip'], ['pip3'], ['uv', 'pip']];
  const tried = [];
  for (const command of candidates) {
    const result = spawnSync(command[0], [...command.slice(1), '--version'], { encoding: 'utf8' });
    if (result.status === 0) return command;
    const why = result.error?.code ?? result.stderr.trim().split('\n').at(-1) ?? `exit ${result.status}`;
    tried.push(`${command.join(' ')}: ${why}`);
  }
  return stop(
    'MB_SETUP_PIP',
    `no pip was found (${tried.join('; ')})`,
    'install it (apt install python3-pip), or install cuBLAS, NCCL and cuDNN otherwise and set MBRIDGE_CUDA_LIBS to their folder',
  );
}

/** One pip call for all: into the same folder, a second one would replace what the first installed. */
function install(pip, requirements) {
  const parameters = [...pip.slice(1), 'install', ...pipOptions, '--no-deps', '--target', target, ...requirements];
  console.error([pip[0], ...parameters].join(' '));
  rmSync(target, { recursive: true, force: true });
  return spawnSync(pip[0], parameters, { stdio: ['ignore', 2, 2] }).status === 0;
}

if (process.platform !== 'linux') {
  stop('MB_SETUP_PLATFORM', `CUDA packages are for Linux, this is ${process.platform}`, 'use the CPU backend here');
}
const pip = findPip();
const preferred = packages.map((entry) => entry.preferred);
const any = packages.map((entry) => entry.any);
if (!install(pip, preferred)) {
  console.error(`not all of ${preferred.join(', ')} are to be had; trying later ones`);
  if (!install(pip, any)) {
    stop(
      'MB_SETUP_INSTALL',
      `pip could not install ${any.join(', ')} (its output is above)`,
      'check the network or the package index, and pass options on: npm run setup:cuda -- --index-url URL',
    );
  }
}
const folder = join(target, 'nvidia');
const installed = existsSync(folder) ? readdirSync(folder) : [];
const missing = packages.filter(({ file }) => !installed.some((name) => existsSync(join(folder, name, 'lib', file))));
if (missing.length > 0) {
  stop(
    'MB_SETUP_FILES',
    `pip reported success, but ${missing.map(({ file }) => file).join(', ')} is not in ${folder}/*/lib`,
    'set MBRIDGE_CUDA_LIBS to the folder that holds it',
  );
}
console.error(`CUDA libraries installed in ${target}; mbridge doctor shows their versions`);

import { spawnSync } from 'node:child_process';
import { join } from 'node:path';

const HOUR = 3_600_000;
/** stdio of a tool whose output the user is to see, on stderr. */
export const SHOWN = ['ignore', 2, 2];

/** Runs a tool to its end: whether it failed, `code` where it could not be started, and what it printed. */
export function runTool(command, args, options = {}) {
  const defaults = { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], timeout: 2 * HOUR, maxBuffer: 1 << 28 };
  const { status, error, stdout, stderr } = spawnSync(command, args, { ...defaults, ...options });
  return { failed: status !== 0, exitCode: status, code: error?.code, stdout: stdout ?? '', stderr: stderr ?? '' };
}

/** First line that a tool prints for `--version`, or undefined when it cannot be run. */
export function version(tool) {
  const { failed, stdout } = runTool(tool, ['--version'], { timeout: 60_000 });
  return failed ? undefined : stdout.split('\n')[0];
}

/** The first of the tools that runs. */
export function findFirst(tools) {
  return tools.find((tool) => tool !== undefined && tool !== '' && version(tool) !== undefined);
}

/** CUDA's compiler: CUDACXX, CUDA_HOME, CUDA_PATH, the PATH, the usual folder; undefined where there is none or MBRIDGE_CUDA=0. */
export function findNvcc(env = process.env) {
  if (env.MBRIDGE_CUDA === '0') return undefined;
  const homes = [env.CUDA_HOME, env.CUDA_PATH].filter(Boolean).map((home) => join(home, 'bin', 'nvcc'));
  return findFirst([env.CUDACXX, ...homes, 'nvcc', '/usr/local/cuda/bin/nvcc']);
}

import { join } from 'node:path';
import { execaSync } from 'execa';

/** First line that a tool prints for `--version`, or undefined when it cannot be run. */
export function version(tool) {
  const { failed, stdout } = execaSync(tool, ['--version'], { reject: false, timeout: 60_000 });
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

import { fileURLToPath } from 'node:url';
import { execa } from 'execa';
import { readOutputs } from '../helpers/outputs.js';

export const BIN = fileURLToPath(new URL('../../bin/mbridge.js', import.meta.url));

export interface Outcome {
  readonly exitCode: number | undefined;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs the real command line (compiled to dist/), as a user does. What it prints with `--json` is held to its schema. */
export async function mbridge(
  args: readonly string[],
  env: Record<string, string> = {},
  cwd: string = process.cwd(),
): Promise<Outcome> {
  const { exitCode, stdout, stderr } = await execa(process.execPath, [BIN, ...args], {
    reject: false,
    cwd,
    env: { NO_COLOR: '1', ...env },
  });
  const own = args.includes('--') ? args.slice(0, args.indexOf('--')) : args;
  if (own.includes('--json')) readOutputs(stdout);
  return { exitCode, stdout, stderr };
}

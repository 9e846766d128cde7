import { spawn, type ChildProcess } from 'node:child_process';

export interface CommandOptions {
  /** Ends the command, and says so in `failure`. */
  readonly timeoutMs: number;
  /** The command's whole environment; default: this process's. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Lets the user see what it prints, on our stderr, instead of giving it back. */
  readonly show?: boolean;
}

/** How a command ended. */
export interface CommandOutcome {
  /** Why it did not do its work, in a few words; undefined where it ended with 0. */
  readonly failure: string | undefined;
  readonly stdout: string;
  readonly stderr: string;
}

const STDERR = 2;

/**
 * Runs another program to its end, or to its time limit. Never throws: `failure` says what went wrong. The command ends
 * with this process.
 */
export async function runCommand(
  command: string,
  args: readonly string[],
  { timeoutMs, env = process.env, show = false }: CommandOptions,
): Promise<CommandOutcome> {
  const output = show ? STDERR : 'pipe';
  let child: ChildProcess;
  try {
    child = spawn(command, args, { env, stdio: ['ignore', output, output] });
  } catch (error) {
    return { failure: error instanceof Error ? error.message : String(error), stdout: '', stderr: '' };
  }
  return new Promise((resolve) => {
    const printed = { stdout: '', stderr: '' };
    for (const stream of ['stdout', 'stderr'] as const) {
      child[stream]?.setEncoding('utf8').on('data', (text: string) => {
        printed[stream] += text;
      });
    }
    const kill = (): void => void child.kill('SIGKILL');
    const settle = (failure: string | undefined): void => {
      clearTimeout(limit);
      process.off('exit', kill);
      resolve({ failure, ...printed });
    };
    const limit = setTimeout(() => {
      kill();
      // What it started may hold its output open: nobody waits for that.
      child.stdout?.destroy();
      child.stderr?.destroy();
      settle(`no end after ${timeoutMs / 1000} s`);
    }, timeoutMs);
    process.on('exit', kill);
    child.on('error', (error: NodeJS.ErrnoException) => {
      settle(error.code === 'ENOENT' ? 'not found' : error.message);
    });
    child.on('close', (code, signal) => {
      settle(code === 0 ? undefined : (signal ?? `exit code ${code}`));
    });
  });
}

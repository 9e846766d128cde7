import { execa } from 'execa';

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

/** Runs another program to its end, or to its time limit. Never throws: `failure` says what went wrong. */
export async function runCommand(
  command: string,
  args: readonly string[],
  { timeoutMs, env, show = false }: CommandOptions,
): Promise<CommandOutcome> {
  const ended = await execa(command, args, {
    reject: false,
    stdin: 'ignore',
    timeout: timeoutMs,
    killSignal: 'SIGKILL',
    ...(show ? { stdout: process.stderr, stderr: process.stderr } : {}),
    ...(env === undefined ? {} : { env, extendEnv: false }),
  });
  const failure = !ended.failed
    ? undefined
    : ended.timedOut
      ? `no end after ${timeoutMs / 1000} s`
      : ended.code === 'ENOENT'
        ? 'not found'
        : (ended.signal ?? (ended.exitCode === undefined ? ended.shortMessage : `exit code ${ended.exitCode}`));
  return { failure, stdout: ended.stdout ?? '', stderr: ended.stderr ?? '' };
}

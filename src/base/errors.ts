/** Process exit codes of every command (README lists them). A signal ends with 128 + its number. */
export const EXIT = {
  ok: 0,
  internal: 1,
  usage: 2,
  config: 3,
  environment: 4,
  worker: 5,
  hang: 6,
  io: 7,
  diverged: 8,
} as const;

/** Whether what ended with this code may go well at the next try: a process or its machine failed, or a collective hung. */
export function isRetryable(exitCode: number): boolean {
  return exitCode === EXIT.worker || exitCode === EXIT.hang;
}

/**
 * An error as people read it, whoever reports it: `error MB_CODE: what was found`, and below it what to do.
 * @param paint of the first word
 */
export function errorText(
  { code, message, hint }: { readonly code: string; readonly message: string; readonly hint?: string | undefined },
  paint: (text: string) => string = (text) => text,
): string {
  return `${paint('error')} ${code}: ${message}${hint === undefined ? '' : `\n  ${hint}`}`;
}

export type ExitKind = Exclude<keyof typeof EXIT, 'ok'>;

/**
 * An error a user can act on: what was found (`message`) and what to do (`hint`). Printed without a stack.
 * Anything else that escapes is a bug of ours and is printed with one.
 */
export class MbridgeError extends Error {
  override readonly name = 'MbridgeError';
  /** Stable identifier such as `MB_CONFIG_UNKNOWN_KEY`. */
  readonly code: string;
  readonly exitCode: number;
  readonly hint: string | undefined;
  /** Facts for `--json`: sizes, ranks, file names. */
  readonly details: Readonly<Record<string, unknown>>;

  constructor(
    kind: ExitKind,
    code: string,
    message: string,
    options: { hint?: string; cause?: unknown; details?: Record<string, unknown> } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.exitCode = EXIT[kind];
    this.hint = options.hint;
    this.details = options.details ?? {};
  }

  toJSON(): Record<string, unknown> {
    const { code, exitCode: exit_code, message, hint, details } = this;
    return { code, exit_code, message, ...(hint === undefined ? {} : { hint }), details };
  }
}

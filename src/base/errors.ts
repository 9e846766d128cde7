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
    const { code, exitCode, message, hint, details } = this;
    return { code, exitCode, message, ...(hint === undefined ? {} : { hint }), details };
  }
}

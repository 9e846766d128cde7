/** A line of a log: its text, after the fields that belong to it where there are any. */
interface LogLine {
  (text: string): void;
  (fields: Readonly<Record<string, unknown>>, text: string): void;
}

/** Where a rank says what a user may want to know, by how much it matters. */
export interface Logger {
  readonly debug: LogLine;
  readonly info: LogLine;
  readonly warn: LogLine;
  readonly error: LogLine;
  /** The failure that ends the process: it is reported elsewhere too, once for all ranks. */
  readonly fatal: LogLine;
}

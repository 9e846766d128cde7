import { MbridgeError } from '../base/errors.js';

/** One thing that is wrong with a configuration. */
export interface Problem {
  readonly code: string;
  /** Where it was written, if it was: `run.yaml:12:5`. */
  readonly place: string | undefined;
  /** The key, `model.num_layers`. */
  readonly path: string;
  /** What was found and what to do. */
  readonly message: string;
}

function line({ place, path, message }: Problem): string {
  const where = [place, path].filter((part) => part !== undefined && part !== '').join(' ');
  return where === '' ? message : `${where}: ${message}`;
}

const MOST_SHOWN = 40;

/** All problems in one error, a line each; nothing happens where there are none. */
export function throwProblems(problems: readonly Problem[]): void {
  const [first] = problems;
  if (first === undefined) return;
  const lines = problems.slice(0, MOST_SHOWN).map(line);
  const more = problems.length - lines.length;
  if (more > 0) lines.push(`and ${more} more`);
  const code = problems.every((p) => p.code === first.code) ? first.code : 'MB_CONFIG_INVALID';
  const message =
    lines.length === 1 ? (lines[0] ?? '') : `${problems.length} problems\n${lines.map((l) => `  ${l}`).join('\n')}`;
  throw new MbridgeError('config', code, message, { details: { problems: problems.slice(0, MOST_SHOWN) } });
}

import { eventJson } from '../../outputs/line.js';
import { EVENT, type EvaluationEvent, type OtherEvent, type StepEvent, type WorkerEvent } from './messages.js';
import { fit, formatShort, formatStep, stepOf, type StepStyle } from './step-line.js';

/** ANSI styles, or plain text. */
export interface Paint {
  red(text: string): string;
  yellow(text: string): string;
  dim(text: string): string;
}

/** Colours only on a terminal, or where FORCE_COLOR wants them, and not against the user's wish (https://no-color.org). */
export function paintFor(stream: object, env: NodeJS.ProcessEnv = process.env): Paint {
  const forced = !['', '0', 'false'].includes(env['FORCE_COLOR'] ?? '');
  const on = (forced || ('isTTY' in stream && stream.isTTY === true)) && (env['NO_COLOR'] ?? '') === '';
  const style = (code: number) => (text: string) => (on ? `\x1b[${code}m${text}\x1b[0m` : text);
  return { red: style(31), yellow: style(33), dim: style(2) };
}

export interface EventStyle extends StepStyle {
  json: boolean;
}

/** The events of a run as lines of stdout. */
export class EventLines {
  readonly #style: EventStyle;
  #validated: { readonly set: string; readonly loss: number } | undefined;

  constructor(style: EventStyle) {
    this.#style = style;
  }

  /** Loss of the last evaluation, of the first set. */
  get validation(): number | undefined {
    return this.#validated?.loss;
  }

  /**
   * One line for one event; null for one that only JSON has, since people are told in other ways. In JSON, a number that
   * is not finite becomes null.
   * @param columns of the terminal, if it is one
   */
  format(event: WorkerEvent, columns?: number): string | null {
    const style = this.#style;
    if (isEvaluation(event) && event.set === (this.#validated?.set ?? event.set)) this.#validated = event;
    if (style.json) return eventJson(event);
    if (LOGGED_TOO.has(event.type)) return null;
    if (event.type === 'step') return formatStep(event as StepEvent, { ...style, columns }, this.validation);
    if (isEvaluation(event)) return formatEvaluation(event, { ...style, columns });
    if (isSample(event)) return formatSample(event, style);
    return formatOther(event);
  }
}

/** What the log says to people. */
const LOGGED_TOO: ReadonlySet<string> = new Set<string>([EVENT.lossWarning]);

interface SampleEvent extends OtherEvent {
  readonly step: number;
  readonly prompt: string;
  readonly text: string;
}

function isSample(event: WorkerEvent): event is SampleEvent {
  const { type, step, prompt, text } = event;
  return type === 'sample' && typeof step === 'number' && typeof prompt === 'string' && typeof text === 'string';
}

/** On one line, whatever the text. */
function formatSample({ step, prompt, text }: SampleEvent, { totalSteps }: EventStyle): string {
  const quoted = [prompt, text].map((part) => JSON.stringify(part));
  return `${stepOf(step, totalSteps, 'sample')}  ${quoted.join(' ')}`;
}

/** Programs have events of that type with other keys. */
function isEvaluation(event: WorkerEvent): event is EvaluationEvent {
  const keys = ['step', 'loss', 'perplexity', 'tokens', 'eval_s'];
  return event.type === 'evaluation' && 'set' in event && keys.every((key) => typeof event[key] === 'number');
}

function formatEvaluation(event: EvaluationEvent, { totalSteps, columns = Infinity }: EventStyle): string {
  const { step, set, loss, perplexity, bits_per_byte: bits, tokens, eval_s: seconds } = event;
  const needed = [stepOf(step, totalSteps, 'eval'), set, `loss ${loss.toFixed(4)}`];
  const further = [
    `perplexity ${formatShort(perplexity)}`,
    ...(bits === undefined ? [] : [`${bits.toFixed(4)} bits/byte`]),
    `${tokens.toLocaleString('en-US')} tokens`,
    `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`,
  ];
  return fit(needed, further, columns);
}

function formatOther(event: OtherEvent): string {
  const { type, ...fields } = event;
  return [type, formatFields(fields)].filter((part) => part !== '').join('  ');
}

function formatFields(fields: Record<string, unknown>): string {
  return Object.entries(fields)
    .map(([key, value]) => `${key}=${typeof value === 'object' ? JSON.stringify(value) : String(value)}`)
    .join(' ');
}

/** Fields of a log line that say nothing on the console. */
const HIDDEN = new Set(['level', 'time', 'pid', 'hostname', 'rank', 'msg', 'err', 'v', 'event']);
export const WARN_LEVEL = 40;
const ERROR_LEVEL = 50;
const FATAL_LEVEL = 60;

/** The text of a log line that warns, of which no event of its own tells; a fatal one is told by the run's result. */
export function warningOf(line: string): string | undefined {
  try {
    const { level, msg, event } = JSON.parse(line) as Record<string, unknown>;
    const warns = Number(level) >= WARN_LEVEL && Number(level) < FATAL_LEVEL && event === undefined;
    return warns ? String(msg) : undefined;
  } catch {
    return undefined;
  }
}

/** A log line (JSON) as text for people; a line that is not JSON is passed as it is. */
export function formatLogLine(line: string, paint: Paint): string {
  let entry: Record<string, unknown>;
  try {
    entry = JSON.parse(line) as Record<string, unknown>;
  } catch {
    return line;
  }
  const level = Number(entry['level']);
  const label = level >= ERROR_LEVEL ? paint.red('error: ') : level >= WARN_LEVEL ? paint.yellow('warning: ') : '';
  const fields = formatFields(Object.fromEntries(Object.entries(entry).filter(([key]) => !HIDDEN.has(key))));
  return `${label}${entry['msg'] ?? ''}${fields === '' ? '' : ` ${paint.dim(fields)}`}`;
}

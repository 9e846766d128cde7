import type { EvaluationEvent, OtherEvent, StepEvent, WorkerEvent } from './messages.js';

/** ANSI styles, or plain text. */
export interface Paint {
  red(text: string): string;
  yellow(text: string): string;
  dim(text: string): string;
}

/** Colours only on a terminal, and not against the user's wish (https://no-color.org). */
export function paintFor(stream: object, env: NodeJS.ProcessEnv = process.env): Paint {
  const on = 'isTTY' in stream && stream.isTTY === true && (env['NO_COLOR'] ?? '') === '';
  const style = (code: number) => (text: string) => (on ? `\x1b[${code}m${text}\x1b[0m` : text);
  return { red: style(31), yellow: style(33), dim: style(2) };
}

export interface EventStyle {
  json: boolean;
  /** train.train_iters. */
  totalSteps: number;
  device: 'cpu' | 'cuda';
}

/** One line of stdout for one event. In JSON, a number that is not finite becomes null. */
export function formatEvent(event: WorkerEvent, style: EventStyle): string {
  if (style.json) return JSON.stringify(event);
  if (event.type === 'step') return formatStep(event as StepEvent, style);
  if (isEvaluation(event)) return formatEvaluation(event, style);
  if (isSample(event)) return formatSample(event, style);
  return formatOther(event);
}

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
  const total = String(totalSteps);
  const quoted = [prompt, text].map((part) => JSON.stringify(part));
  return `sample ${String(step).padStart(Math.max(4, total.length))}/${total}  ${quoted.join(' ')}`;
}

/** Programs have events of that type with other keys. */
function isEvaluation(event: WorkerEvent): event is EvaluationEvent {
  const keys = ['step', 'loss', 'perplexity', 'tokens', 'seconds'];
  return event.type === 'evaluation' && 'set' in event && keys.every((key) => typeof event[key] === 'number');
}

function formatEvaluation(event: EvaluationEvent, { totalSteps }: EventStyle): string {
  const { step, set, loss, perplexity, bits_per_byte: bits, tokens, seconds } = event;
  const total = String(totalSteps);
  const parts = [
    `eval ${String(step).padStart(Math.max(4, total.length))}/${total}`,
    set,
    `loss ${loss.toFixed(4)}`,
    `perplexity ${formatShort(perplexity)}`,
    ...(bits === undefined ? [] : [`${bits.toFixed(4)} bits/byte`]),
    `${tokens.toLocaleString('en-US')} tokens`,
    `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`,
  ];
  return parts.join('  ');
}

function formatStep(event: StepEvent, { totalSteps, device }: EventStyle): string {
  const total = String(totalSteps);
  const parts = [
    `step ${String(event.step).padStart(Math.max(4, total.length))}/${total}`,
    `loss ${event.loss.toFixed(4)}`,
    `grad_norm ${formatShort(event.grad_norm)}`,
    `lr ${event.lr.toExponential(1)}`,
    `${event.step_time_ms < 10 ? event.step_time_ms.toFixed(1) : event.step_time_ms.toFixed(0)} ms`,
  ];
  const { tokens_per_s_per_gpu: rate, tflops_per_gpu: tflops, mfu } = event;
  const unit = device === 'cuda' ? 'GPU' : 'rank';
  if (rate !== undefined) parts.push(`${Math.round(rate).toLocaleString('en-US')} tokens/s/${unit}`);
  if (tflops !== undefined && device === 'cuda') parts.push(`${tflops.toFixed(1)} TFLOP/s/${unit}`);
  if (mfu !== undefined && mfu > 0) parts.push(`MFU ${(mfu * 100).toFixed(1)} %`);
  if (event['skipped'] === true) parts.push(event.tokens === 0 ? 'skipped: no token counts (tokens 0)' : 'skipped');
  return parts.join('  ');
}

function formatShort(value: number): string {
  return value !== 0 && (Math.abs(value) < 0.01 || Math.abs(value) >= 10_000)
    ? value.toExponential(2)
    : value.toFixed(2);
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

/** Fields of a pino line that say nothing on the console. */
const HIDDEN = new Set(['level', 'time', 'pid', 'hostname', 'rank', 'msg', 'err', 'v']);
export const WARN_LEVEL = 40;
const ERROR_LEVEL = 50;

/** A pino line (JSON) as text for people; a line that is not JSON is passed as it is. */
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

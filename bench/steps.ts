import { spawn } from 'node:child_process';
import { availableParallelism } from 'node:os';

/** The run that both sides make: qwen3-tiny, this many tokens an update. */
export interface StepShape {
  readonly microBatch: number;
  readonly globalBatch: number;
  readonly seqLength: number;
  readonly threads: number;
  readonly steps: number;
}

/** What one process measured. */
export interface Measurement {
  /** Milliseconds of each update, in order, warm-up included. */
  readonly times: readonly number[];
  readonly firstLoss: number;
  readonly lastLoss: number;
  readonly versions: string;
}

/** Limits a command to as many cores as it has threads, where the machine has more. */
export function onCores(threads: number, command: readonly string[]): readonly string[] {
  return threads < availableParallelism() ? ['taskset', '-c', `0-${threads - 1}`, ...command] : command;
}

/** Runs a command and returns its lines of JSON; its stderr is passed on when it fails. */
export async function jsonLines(command: readonly string[]): Promise<Record<string, unknown>[]> {
  const [program = '', ...args] = command;
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let [out, err] = ['', ''];
  child.stdout.on('data', (chunk: Buffer) => (out += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (err += chunk.toString()));
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
  if (code !== 0) throw new Error(`${command.join(' ')} ended with ${code}:\n${err}`);
  const lines = out.split('\n').filter((line) => line.startsWith('{'));
  return lines.map((line) => JSON.parse(line) as Record<string, unknown>);
}

/** The value below which a part of the sorted values lies. */
export function quantile(values: readonly number[], part: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (sorted.length - 1) * part;
  const [low = NaN, high = NaN] = [sorted[Math.floor(at)], sorted[Math.ceil(at)]];
  return low + (high - low) * (at - Math.floor(at));
}

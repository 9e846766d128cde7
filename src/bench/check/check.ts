import { gpusFor } from '../../engine/devices.js';
import { ranksOf, trainRun, type CheckLayout, type TrainedStep } from './train-run.js';

/** Where checks run, and what they compare with. */
export interface CheckPlace {
  readonly device: 'cpu' | 'cuda';
  /** Most processes of a run. */
  readonly ranks: number;
  /** Processes that share each GPU. */
  readonly ranksPerGpu: number;
  /** Folder of the oracle fixtures (fixtures/). */
  readonly fixtures: string;
  /** Folder that bench/torch_bf16_oracle.py wrote; null where there is none. */
  readonly oracle: string | null;
  /** Aborted by a signal, which is its reason: runs end, and no other is started. */
  readonly stop: AbortSignal;
}

/** One number and the most that it may be. */
export interface Measure {
  readonly what: string;
  readonly value: number;
  readonly bound: number;
}

/** Something that must hold on this machine. */
export interface Check {
  readonly part: string;
  readonly name: string;
  /** Processes that it takes. */
  readonly ranks: number;
  /** Why it cannot run here, whatever the number of GPUs. */
  readonly impossible?: string;
  readonly run: (runner: CheckRunner) => Promise<Measure[]>;
}

export type Verdict = 'ok' | 'failed' | 'skipped';

export interface CheckResult {
  readonly part: string;
  readonly name: string;
  readonly verdict: Verdict;
  readonly measures: readonly Measure[];
  readonly seconds: number;
  /** Why it was skipped, or what went wrong. */
  readonly reason: string | null;
}

/** What a check trains with: the GPUs that it was given, and runs that several checks compare with, made once. */
export interface CheckRunner {
  readonly place: CheckPlace;
  readonly gpus: readonly number[];
  train(layout: CheckLayout, what: { args?: readonly string[]; config?: unknown }): Promise<TrainedStep[]>;
  shared(key: string, make: () => Promise<TrainedStep[]>): Promise<TrainedStep[]>;
}

function holds({ value, bound }: Measure): boolean {
  return value <= bound; // false for NaN
}

/** Why a check does not run here, or null. */
export function whySkipped(check: Check, { device, ranks, ranksPerGpu }: CheckPlace): string | null {
  if (check.impossible !== undefined) return check.impossible;
  const unit = device === 'cuda' && ranksPerGpu === 1 ? 'GPUs' : 'processes';
  return check.ranks > ranks ? `needs ${check.ranks} ${unit}, ${ranks} are here` : null;
}

/** Runs one check on the GPUs `gpus`. */
export async function runCheck(
  check: Check,
  place: CheckPlace,
  gpus: readonly number[],
  made: Map<string, Promise<TrainedStep[]>>,
): Promise<CheckResult> {
  const { part, name } = check;
  const started = performance.now();
  const finish = (verdict: Verdict, measures: readonly Measure[], reason: string | null): CheckResult => {
    return { part, name, verdict, measures, seconds: (performance.now() - started) / 1000, reason };
  };
  const skipped = whySkipped(check, place);
  if (skipped !== null) return finish('skipped', [], skipped);
  const runner: CheckRunner = {
    place,
    gpus,
    train: (layout, what) => {
      const { device, ranksPerGpu, stop } = place;
      const own = gpus.slice(0, gpusFor(ranksOf(layout), ranksPerGpu));
      return trainRun({ device, ranksPerGpu, stop, gpus: own, layout, ...what });
    },
    shared: (key, make) => {
      const known = made.get(key) ?? make();
      made.set(key, known);
      return known;
    },
  };
  try {
    const measures = await check.run(runner);
    return finish(measures.every(holds) ? 'ok' : 'failed', measures, null);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    // Only a run knows what its GPU is.
    if (reason.includes('MB_FP8_DEVICE')) return finish('skipped', [], 'fp8_mixed takes a GPU of capability 9.0');
    return finish('failed', [], reason);
  }
}

/**
 * Runs checks, those that leave GPUs free beside each other, and tells of each as it ends. On a CPU one after the other.
 * Results are in the order of the checks.
 */
export async function runChecks(
  checks: readonly Check[],
  place: CheckPlace,
  onResult: (result: CheckResult) => void,
): Promise<CheckResult[]> {
  const made = new Map<string, Promise<TrainedStep[]>>();
  const free = new Set(Array.from({ length: gpusFor(place.ranks, place.ranksPerGpu) }, (_, i) => i));
  const results: (CheckResult | undefined)[] = checks.map(() => undefined);
  const running = new Map<number, Promise<void>>();
  // The largest first: the small ones fill what these leave.
  const queue = checks.map((_, i) => i).sort((a, b) => (checks[b]?.ranks ?? 0) - (checks[a]?.ranks ?? 0) || a - b);
  const startNext = (): boolean => {
    if (place.stop.aborted) queue.length = 0;
    if (place.device === 'cpu' && running.size > 0) return false;
    const at = queue.findIndex((i) => {
      const check = checks[i];
      return (
        check !== undefined &&
        (whySkipped(check, place) !== null || gpusFor(check.ranks, place.ranksPerGpu) <= free.size)
      );
    });
    const [index] = at < 0 ? [] : queue.splice(at, 1);
    const check = index === undefined ? undefined : checks[index];
    if (index === undefined || check === undefined) return false;
    const gpus = whySkipped(check, place) === null ? [...free].slice(0, gpusFor(check.ranks, place.ranksPerGpu)) : [];
    for (const gpu of gpus) free.delete(gpu);
    const run = runCheck(check, place, gpus, made).then((result) => {
      for (const gpu of gpus) free.add(gpu);
      running.delete(index);
      results[index] = result;
      // A run that was interrupted is no failed check.
      if (result.verdict !== 'failed' || !place.stop.aborted) onResult(result);
    });
    running.set(index, run);
    return true;
  };
  while (queue.length > 0 || running.size > 0) {
    if ((queue.length === 0 || !startNext()) && running.size > 0) await Promise.race(running.values());
  }
  return results.filter((result) => result !== undefined);
}

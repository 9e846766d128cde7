import type { MetricKey, XAxis } from './metrics.js';
import type {
  EvaluationPoint,
  LossWarning,
  RankTimes,
  Sample,
  StepPoint,
  StragglerRecord,
  TraceEvent,
  TraceFile,
} from './trace-event.js';

/** One line of a chart. */
export interface Curve {
  /** What tells it from other curves of the run: the validation set; '' for the only one. */
  readonly name: string;
  /** Ascending: updates, seconds since the start, or tokens. */
  readonly x: readonly number[];
  /** null is a gap. */
  readonly y: readonly (number | null)[];
}

/** What the files of one run have told, as it comes. Of an update that was run again the last counts. */
export class RunData {
  readonly #startedMs: number;
  readonly #tokensPerUpdate: number;
  readonly #steps = new Map<number, StepPoint>();
  readonly #evaluations = new Map<string, Map<number, EvaluationPoint>>();
  #lossWarnings: LossWarning[] = [];
  #samples: Sample[] = [];
  #ranks: RankTimes[] = [];
  #stragglers: StragglerRecord[] = [];
  #sorted: readonly StepPoint[] | null = null;

  constructor(run: { readonly started: string; readonly tokensPerUpdate: number }) {
    this.#startedMs = Date.parse(run.started);
    this.#tokensPerUpdate = run.tokensPerUpdate;
  }

  /** Forgets what a file has told. */
  reset(file: TraceFile): void {
    if (file === 'samples') this.#samples = [];
    else if (file === 'ranks') [this.#ranks, this.#stragglers] = [[], []];
    else {
      this.#steps.clear();
      this.#evaluations.clear();
      this.#lossWarnings = [];
      this.#sorted = null;
    }
  }

  add(events: readonly TraceEvent[]): void {
    for (const event of events) this.#add(event);
    this.#sorted = null;
  }

  /** Ascending. */
  get steps(): readonly StepPoint[] {
    return (this.#sorted ??= [...this.#steps.values()].sort((a, b) => a.step - b.step));
  }

  get lossWarnings(): readonly LossWarning[] {
    return this.#lossWarnings;
  }

  get samples(): readonly Sample[] {
    return this.#samples;
  }

  get rankTimes(): readonly RankTimes[] {
    return this.#ranks;
  }

  get stragglers(): readonly StragglerRecord[] {
    return this.#stragglers;
  }

  /** Since the start, as far as updates are told of. */
  get seconds(): number {
    return this.#xOf(this.steps.at(-1)?.step ?? 0, 'time');
  }

  /** The curves of a metric; none where no number of it is known. */
  curves(key: MetricKey, axis: XAxis): Curve[] {
    if (key === 'validation') {
      return [...this.#evaluations].map(([name, points]) => {
        const sorted = [...points.values()].sort((a, b) => a.step - b.step);
        return this.#curve(this.#evaluations.size === 1 ? '' : name, sorted, ({ loss }) => loss, axis);
      });
    }
    const points = this.steps.filter((point) => point[key] !== undefined);
    const value = (point: StepPoint): number | null => (point.skipped === true && key === 'loss' ? null : point[key]!);
    return points.length === 0 ? [] : [this.#curve('', points, value, axis)];
  }

  #curve<P extends { readonly step: number }>(
    name: string,
    points: readonly P[],
    value: (point: P) => number | null,
    axis: XAxis,
  ): Curve {
    const [x, y]: [number[], (number | null)[]] = [[], []];
    let before = -Infinity;
    for (const point of points) {
      // A run that went on has its clock set back where it lost updates: their time counts once.
      const at = Math.max(this.#xOf(point.step, axis), before);
      if (at === before) continue;
      before = at;
      x.push(at);
      y.push(value(point));
    }
    return { name, x, y };
  }

  #xOf(step: number, axis: XAxis): number {
    if (axis === 'step') return step;
    if (axis === 'tokens') return step * this.#tokensPerUpdate;
    const time = this.#steps.get(step)?.time ?? this.#before(step)?.time;
    return time === undefined ? 0 : Math.max(0, (time - this.#startedMs) / 1000);
  }

  /** The last update up to `step` that is known. */
  #before(step: number): StepPoint | undefined {
    const steps = this.steps;
    let [low, high] = [0, steps.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (steps[middle]!.step <= step) low = middle + 1;
      else high = middle;
    }
    return steps[low - 1];
  }

  #add(event: TraceEvent): void {
    switch (event.type) {
      case 'step':
        this.#steps.set(event.step, event);
        return;
      case 'evaluation': {
        const set = this.#evaluations.get(event.set) ?? new Map<number, EvaluationPoint>();
        this.#evaluations.set(event.set, set.set(event.step, event));
        return;
      }
      case 'loss_warning':
        this.#lossWarnings.push(event);
        return;
      case 'sample':
        this.#samples.push(event);
        return;
      case 'ranks':
        this.#ranks.push(event);
        return;
      case 'straggler':
        this.#stragglers.push(event);
    }
  }
}

import type { MicroBatch } from '../data/micro-batch.js';
import type { DistributedModel } from '../model/stage/distributed-model.js';
import type { StepReport } from '../model/totals/step-totals.js';
import type { Groups } from './setup.js';
import { lossTotals } from './metrics.js';
import type { Every } from './train.js';

export interface EvaluatorOptions {
  readonly model: DistributedModel;
  readonly pgCollection: Pick<Groups, 'intraDistOpt'>;
  /**
   * This replica's micro-batches, batch after batch, as many on every rank; asked for anew each time. A batch is read
   * before the next is asked for. Totals of one batch are float32, those of several are added up in float64.
   */
  readonly batches: () => Iterable<readonly MicroBatch[]>;
  /** Awaited on every rank before each batch, from 1: false, which all ranks must get, ends the evaluation there. */
  readonly goesOn?: (batch: number) => Promise<boolean>;
}

/** The loss of a model on batches of its own, over all replicas. The same on every rank. */
export interface Evaluation {
  /** Mean over the counted tokens. */
  readonly loss: number;
  readonly tokens: number;
  /** What a loss of one's own added up, by name. */
  readonly totals: Readonly<Record<string, number>>;
}

/** Evaluates a model: forward passes alone, whose totals are summed over the model's ranks. */
export class Evaluator {
  readonly #o: EvaluatorOptions;

  constructor(options: EvaluatorOptions) {
    this.#o = options;
  }

  /** Every rank of the model calls it. */
  async run(): Promise<Evaluation> {
    const sums: Record<string, number> = {};
    for await (const { totals } of this.reports()) {
      for (const [name, value] of Object.entries(totals)) sums[name] = (sums[name] ?? 0) + value;
    }
    const { loss = NaN, tokens = NaN } = sums;
    return { loss: loss / tokens, tokens, totals: lossTotals(sums) };
  }

  /** The totals of one batch after the other. The device works on a batch while the host looks at the one before. */
  async *reports(): AsyncGenerator<StepReport> {
    const { model, pgCollection, batches, goesOn } = this.#o;
    const { totals, env } = model.stage;
    let pending: Promise<StepReport> | null = null;
    let count = 0;
    for (const batch of batches()) {
      if (goesOn !== undefined && !(await goesOn(++count))) break;
      model.evaluate(batch);
      totals.reduce(env.ops, pgCollection.intraDistOpt);
      const report = totals.fetch(env.ops);
      report.catch(() => undefined);
      if (pending !== null) yield await pending;
      pending = report;
    }
    if (pending !== null) yield await pending;
  }

  /** For `every` of {@link train}: evaluates, and tells `report` on every rank. Its time is not the step's. */
  every(updates: number, report: (step: number, evaluation: Evaluation) => void): Every {
    return {
      every: updates,
      apart: true,
      act: async (step) => report(step, await this.run()),
    };
  }
}

import type { MicroBatch } from '../data/micro-batch.js';
import type { DistributedModel } from '../model/stage/distributed-model.js';
import type { Groups } from './setup.js';
import { lossTotals } from './metrics.js';
import type { Every } from './train.js';

export interface EvaluatorOptions {
  readonly model: DistributedModel;
  readonly pgCollection: Pick<Groups, 'intraDistOpt'>;
  /** This replica's micro-batches, as many on every rank; asked for anew each time. */
  readonly batches: () => readonly MicroBatch[];
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
    const { model, pgCollection, batches } = this.#o;
    const { totals, env } = model.stage;
    model.evaluate(batches());
    totals.reduce(env.ops, pgCollection.intraDistOpt);
    const report = await totals.fetch(env.ops);
    const { loss = NaN, tokens = NaN } = report.totals;
    return { loss: loss / tokens, tokens, totals: lossTotals(report.totals) };
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

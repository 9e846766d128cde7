import type { EvaluationSet } from '../data/evaluation-set.js';
import { setupEvaluationSets } from '../data/setup-evaluation-sets.js';
import type { EvaluationNumbers } from '../job/shared/messages.js';
import { Evaluator } from './evaluator.js';
import { evaluationNumbers } from './evaluation-numbers.js';
import type { Run } from './run.js';
import type { Every } from './train.js';

type ValidatedRun = Pick<Run, 'context' | 'config' | 'model' | 'pgCollection' | 'step'>;

/** The evaluations that section `validation` asks for. Every rank makes the same calls. */
export class Validation {
  readonly #run: ValidatedRun;
  readonly #sets: readonly EvaluationSet[];
  readonly #results: Record<string, { step: number } & EvaluationNumbers> = {};
  #lastStep = -1;

  private constructor(run: ValidatedRun, sets: readonly EvaluationSet[]) {
    this.#run = run;
    this.#sets = sets;
  }

  /**
   * Opens the sets; null where none is asked for.
   * @throws MbridgeError exit 7 for a set that cannot be read, or is too small
   */
  static open(run: ValidatedRun): Validation | null {
    const { config: cfg, pgCollection, context } = run;
    if (cfg.validation.eval_interval === null) return null;
    const sets = setupEvaluationSets(cfg, pgCollection.dp);
    for (const set of sets) context.log.info(`validation set ${set.describe()}`);
    return new Validation(run, sets);
  }

  /** For `every` of {@link Run.train}. */
  every(): Every[] {
    const { eval_interval: interval } = this.#run.config.validation;
    return interval === null ? [] : [{ every: interval, apart: true, act: (step) => this.evaluate(step) }];
  }

  /** Evaluates every set as the model is after update `step`, unless that was done. */
  async evaluate(step: number): Promise<void> {
    if (this.#lastStep === step) return;
    this.#lastStep = step;
    const { model, pgCollection, context } = this.#run;
    for (const set of this.#sets) {
      const started = performance.now();
      const evaluation = await new Evaluator({ model, pgCollection, batches: () => set.batches() }).run();
      const seconds = (performance.now() - started) / 1000;
      if (pgCollection.intraDistOpt.rank !== 0) continue;
      const result = { step, ...evaluationNumbers(set, evaluation, seconds) };
      this.#results[set.name] = result;
      context.emit({ type: 'evaluation', set: set.name, ...result });
    }
  }

  /** The last evaluation of each set, for the run's result; on the rank that emits them. */
  get results(): Readonly<Record<string, unknown>> {
    return this.#results;
  }

  close(): void {
    for (const set of this.#sets) set.close();
  }
}

import { MbridgeError } from '../base/errors.js';
import type { StepResult } from './metrics.js';

/**
 * Follows the updates that were skipped because their gradient norm was not finite, and tells why. All that it looks at
 * is equal on every rank of the model.
 */
export class SkippedUpdates {
  readonly #max: number;
  /** Updates in a row that were skipped, those without a counted token left out. */
  #inRow = 0;
  /** The first of the updates seen, and how many of them there were. */
  #first = 0;
  #seen = 0;
  /** Some update of this run had a counted token. */
  #counted = false;

  /** @param max train.max_skipped_in_a_row */
  constructor(max: number) {
    this.#max = max;
  }

  /**
   * Takes the next update's result. Returns whether the run must end: `max` updates in a row were not finite, or no
   * token counted in the first `max` of the run. A later batch without a counted token says nothing about the training.
   */
  note(result: StepResult): boolean {
    if (this.#seen === 0) this.#first = result.step;
    this.#seen++;
    if (result.tokens === 0) return !this.#counted && this.#seen >= this.#max;
    this.#counted = true;
    this.#inRow = result.skipped ? this.#inRow + 1 : 0;
    return this.#inRow >= this.#max;
  }

  /** Whether there were updates, and all of them without a counted token. */
  get nothingCounted(): boolean {
    return this.#seen > 0 && !this.#counted;
  }

  /**
   * Why the run ends.
   * @param squaredWeights sum of squares of the model's weights: NaN where one of them is
   */
  cause(last: StepResult, squaredWeights: number): MbridgeError {
    const { step, tokens, loss } = last;
    const details = { step, skippedInRow: this.#inRow };
    if (this.nothingCounted) {
      const which = this.#first === step ? `update ${step}` : `updates ${this.#first} to ${step}`;
      return new MbridgeError('io', 'MB_NO_COUNTED_TOKENS', `no token counts in ${which}: the loss mask is all 0`, {
        hint: 'mend "loss_mask" in the data: entry j is 1 where predicting token j counts, and long prompts may leave no answer',
        details,
      });
    }
    const rows = `in ${this.#inRow} updates in a row, the last is ${step}`;
    if (!Number.isFinite(tokens)) {
      return new MbridgeError(
        'io',
        'MB_LOSS_WEIGHTS',
        `the weights of the tokens in the data were not finite ${rows}`,
        {
          hint: 'look at the weights (advantages, masks) that the data gives its tokens: one is NaN or infinite',
          details,
        },
      );
    }
    if (Number.isNaN(squaredWeights)) {
      return new MbridgeError('io', 'MB_WEIGHTS_NAN', `the model's weights hold NaN, so no update was finite ${rows}`, {
        hint: 'an update that is not finite changes no weight: they were loaded so; take other weights or an earlier checkpoint',
        details,
      });
    }
    const what = Number.isFinite(loss)
      ? `the gradients overflowed (the loss was ${loss.toPrecision(4)}): their norm was not finite`
      : 'the loss was not finite: the gradient norm was not finite';
    return new MbridgeError(
      'diverged',
      Number.isFinite(loss) ? 'MB_GRADIENT_OVERFLOW' : 'MB_DIVERGED',
      `${what} ${rows}`,
      {
        hint: 'lower optimizer.lr, lengthen scheduler.lr_warmup_iters, or look at the data of these updates; train.max_skipped_in_a_row allows more',
        details,
      },
    );
  }
}

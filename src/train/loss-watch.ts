import { median } from '../base/median.js';
import type { EVENT } from '../job/shared/messages.js';
import type { StepResult } from './metrics.js';

/** Losses that tell how much one differs from the next, and the last ones, which a jump is measured from. */
const WINDOW = 32;
const LAST = 8;
/** A jump is so many times that difference above the last ones' median, and at least so many nats. */
const DIFFERENCES = 8;
const LEAST_NATS = 0.5;
/** From this update on a model has learned which tokens are frequent. */
const SETTLED = 20;
/** Above that of guessing by more than what chance does, then and before. */
const ABOVE_GUESSING = 1.02;
const FAR_ABOVE_GUESSING = 1.5;
/** Between two warnings of a kind. */
const PAUSE = 50;

export interface LossWarning {
  readonly type: typeof EVENT.lossWarning;
  readonly step: number;
  readonly kind: 'spike' | 'above_guessing';
  readonly loss: number;
  /** What it is compared with: the median of the updates before, or ln(vocabulary). */
  readonly usual: number;
  readonly text: string;
}

/**
 * Looks out for losses that say that something is wrong: one that jumps, and one above that of guessing, ln(vocabulary).
 * It only says so: that an update was not finite is another's affair.
 */
export class LossWatch {
  readonly #guessing: number;
  readonly #losses: number[] = [];
  readonly #warned = new Map<LossWarning['kind'], number>();
  #seen = 0;

  /** @param vocabulary tokens that a model can tell apart */
  constructor(vocabulary: number) {
    this.#guessing = Math.log(vocabulary);
  }

  /** Takes the next update's result. */
  note({ step, loss, tokens }: Pick<StepResult, 'step' | 'loss' | 'tokens'>): LossWarning | null {
    if (tokens === 0 || !Number.isFinite(loss)) return null;
    this.#seen++;
    const found = this.#jump(step, loss) ?? this.#above(step, loss);
    this.#losses.push(loss);
    if (this.#losses.length > WINDOW) this.#losses.shift();
    return found;
  }

  #jump(step: number, loss: number): LossWarning | null {
    const losses = this.#losses;
    if (losses.length < LAST) return null;
    const usual = median(losses.slice(-LAST));
    const difference = median(losses.slice(1).map((each, i) => Math.abs(each - (losses[i] ?? each))));
    if (loss - usual <= Math.max(LEAST_NATS, DIFFERENCES * difference)) return null;
    const text = `the loss jumped to ${loss.toFixed(4)} at update ${step}, from ${usual.toFixed(4)}: look at the data of this update; if it stays, lower optimizer.lr`;
    return this.#once({ type: 'loss_warning', step, kind: 'spike', loss, usual, text });
  }

  #above(step: number, loss: number): LossWarning | null {
    const usual = this.#guessing;
    if (loss <= usual * (this.#seen < SETTLED ? FAR_ABOVE_GUESSING : ABOVE_GUESSING)) return null;
    const text = `the loss at update ${step} is ${loss.toFixed(4)}, above ln(vocabulary) = ${usual.toFixed(4)}, that of guessing: lower optimizer.lr, lengthen scheduler.lr_warmup_iters, or look at the data`;
    return this.#once({ type: 'loss_warning', step, kind: 'above_guessing', loss, usual, text });
  }

  #once(warning: LossWarning): LossWarning | null {
    const last = this.#warned.get(warning.kind);
    if (last !== undefined && warning.step - last < PAUSE) return null;
    this.#warned.set(warning.kind, warning.step);
    return warning;
  }
}

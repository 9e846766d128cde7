import { MbridgeError } from '../../base/errors.js';
import type { MicroBatch } from '../../data/micro-batch.js';
import type { Loss } from '../blocks/loss.js';
import { TokenReader, type TokenDerivatives, type TokenScores } from './token-reader.js';

/** A micro-batch as a loss of tokens sees it: whole sequences, on every layout. */
export interface TokenBatch extends TokenScores {
  readonly batch: MicroBatch;
  /** Samples, and tokens of each: token t of sample i is entry i * seq + t of every array. */
  readonly samples: number;
  readonly seq: number;
}

/** What a loss of tokens gives back. All is zero before, and ignored where `mask` is 0. */
export interface TokenResult {
  /** f32 [b*s]: its sum is the micro-batch's loss. */
  readonly loss: Float32Array;
  readonly derivatives: TokenDerivatives;
  /** Sums of one's own, by name. */
  readonly totals: Record<string, number>;
}

/** Fills `result` for a micro-batch. The same numbers must come out wherever it is called with the same. */
export type TokenLossFunction = (tokens: TokenBatch, result: TokenResult) => void;

export interface TokenLossOptions {
  readonly name: string;
  /** float32 fields that the function reads from the batch, [b*s] each; only the last stage needs them. */
  readonly fields?: readonly string[];
  /** Names of the sums that the function adds to. */
  readonly totals?: readonly string[];
  readonly loss: TokenLossFunction;
  /**
   * What a micro-batch adds to the number that the step's loss and gradients are divided by, apart from any weights: by
   * default its counted tokens; samples, pairs, or a constant where those are what is averaged over.
   */
  readonly divisor?: (tokens: TokenBatch) => number;
}

/**
 * A loss as a JavaScript function of what the model says of each token (log-probability, entropy, or value), and its
 * derivatives by that: nothing else is to be differentiated. It runs on the last stage, inside the same schedule as any
 * loss, on every layout. The device waits for it once a micro-batch.
 */
export function tokenLoss({ name, fields = [], totals: names = [], loss, divisor }: TokenLossOptions): Loss {
  return {
    name,
    fields: [
      { name: 'targets', dtype: 'i32' },
      { name: 'mask', dtype: 'f32' },
    ],
    totals: names,
    plan: (env, { lossAndTokens, of }) => {
      const reader = new TokenReader(env);
      const sums = env.plan.tensor('staging', [2 + names.length], 'f32');
      const { batch: samples, seq } = env.sizes;
      return {
        apply: (logits, fieldOf, batch) => {
          const { ops, cp } = env;
          checkFields(name, batch, fields);
          const targets = fieldOf('targets');
          const tokens = { ...reader.read(logits, targets), batch, samples, seq };
          const result = resultOf(tokens, names);
          loss(tokens, result);
          const { logprob, entropy, value } = result.derivatives;
          for (const values of [result.loss, logprob, entropy, value]) keepCounted(values, batch.mask);
          reader.differentiate(logits, targets, result.derivatives);
          // Ranks that share the sequences have the same numbers: each adds its tokens' losses, and the first the rest.
          const first = cp.rank === 0;
          const lossSum = reader.held.reduce((sum, token) => sum + (result.loss[token] as number), 0);
          const count = first ? (divisor?.(tokens) ?? batch.mask.reduce((sum, counted) => sum + counted, 0)) : 0;
          const own = names.map((total) => (first ? (result.totals[total] ?? 0) : 0));
          ops.device.write(sums, Float32Array.of(lossSum, count, ...own));
          ops.add(lossAndTokens, sums.slice(0, 2), lossAndTokens);
          names.forEach((total, i) => ops.add(of(total), sums.slice(2 + i, 1), of(total)));
        },
      };
    },
  };
}

function resultOf({ logprob: { length } }: TokenBatch, names: readonly string[]): TokenResult {
  const zeros = (): Float32Array => new Float32Array(length);
  return {
    loss: zeros(),
    derivatives: { logprob: zeros(), entropy: zeros(), value: zeros() },
    totals: Object.fromEntries(names.map((name) => [name, 0])),
  };
}

/** Whatever is not counted has no say, not even a number that is not finite. */
function keepCounted(values: Float32Array, mask: Float32Array): void {
  for (let t = 0; t < values.length; t++) if (mask[t] === 0) values[t] = 0;
}

function checkFields(loss: string, batch: MicroBatch, fields: readonly string[]): void {
  for (const name of fields) {
    const values = batch[name];
    if (values?.length === batch.tokens.length && values instanceof Float32Array) continue;
    const found = values === undefined ? 'is not there' : `has ${values.length} entries`;
    throw new MbridgeError('config', 'MB_BATCH', `${loss}: the field ${name} of a micro-batch ${found}`, {
      hint: `bring it as a Float32Array of ${batch.tokens.length} entries, one a token of the micro-batch`,
    });
  }
}

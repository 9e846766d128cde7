import type { Loss } from '../blocks/loss.js';
import { tokenLoss, type TokenBatch, type TokenResult } from './token-loss.js';

/** Estimators of the KL divergence from a reference, by one sample (http://joschu.net/blog/kl-approx.html). */
export type KlEstimator = 'k1' | 'k2' | 'k3';

/** The estimate of KL(policy || reference) at a token, in nats, and its derivative by `logprob`. */
export function klEstimate(kind: KlEstimator, logprob: number, reference: number): { kl: number; derivative: number } {
  const d = reference - logprob;
  if (kind === 'k1') return { kl: -d, derivative: 1 };
  if (kind === 'k2') return { kl: d ** 2 / 2, derivative: -d };
  return { kl: Math.expm1(d) - d, derivative: -Math.expm1(d) };
}

export interface PolicyLossOptions {
  /** How far the ratio may go from 1, below and above: 0.2 by default. */
  readonly clip?: number | readonly [below: number, above: number];
  /** Weight of the entropy, which is made larger; 0 by default. */
  readonly entropyBonus?: number;
  /** A penalty for leaving the reference, whose log-probabilities are the field `ref_logprob`. */
  readonly kl?: { readonly weight: number; readonly kind?: KlEstimator };
  /** What is averaged: counted tokens, or the means of samples (those that have a counted token). */
  readonly average?: 'token' | 'sample';
}

/**
 * PPO's clipped objective. Fields: `advantage`, and `old_logprob`, the log-probabilities under the policy that made the
 * tokens. Totals: `kl` (sum of the estimates, where there is a reference) and `clipped` (tokens that the bound holds).
 */
export function ppoLoss(options: PolicyLossOptions = {}): Loss {
  return policyLoss('ppo', options, 'token', (tokens, clip, add) => {
    const { batch, logprob } = tokens;
    for (const { counted } of samplesOf(tokens)) {
      for (const t of counted) {
        const ratio = Math.exp(logprob[t]! - batch['old_logprob']![t]!);
        const { loss, slope, clipped } = clippedObjective(ratio, batch['advantage']![t]!, clip);
        add(t, loss, slope * ratio, clipped);
      }
    }
  });
}

/** GRPO: {@link ppoLoss} averaged over samples, with k3 as the penalty's estimator. */
export function grpoLoss(options: PolicyLossOptions = {}): Loss {
  return { ...ppoLoss({ average: 'sample', ...options }), name: 'grpo' };
}

/**
 * GSPO: the ratio, and its bound, are of whole samples: exp of the mean of the log-ratios of a sample's counted tokens.
 * The advantage of a sample is that of its first counted token. Fields and totals as in {@link ppoLoss}.
 */
export function gspoLoss(options: PolicyLossOptions = {}): Loss {
  return policyLoss('gspo', { clip: [3e-4, 4e-4], ...options }, 'sample', (tokens, clip, add) => {
    const { batch, logprob } = tokens;
    for (const { counted } of samplesOf(tokens)) {
      const logRatio = counted.reduce((sum, t) => sum + logprob[t]! - batch['old_logprob']![t]!, 0) / counted.length;
      const ratio = Math.exp(logRatio);
      const { loss, slope, clipped } = clippedObjective(ratio, batch['advantage']![counted[0]!]!, clip);
      for (const t of counted) add(t, loss, slope * ratio, clipped);
    }
  });
}

/** Of the ratio r and the advantage a: -min(r a, clip(r) a), and its derivative by r. */
function clippedObjective(ratio: number, advantage: number, [below, above]: readonly [number, number]) {
  const held = Math.min(Math.max(ratio, 1 - below), 1 + above);
  const clipped = held * advantage < ratio * advantage;
  return { loss: -(clipped ? held : ratio) * advantage, slope: clipped ? 0 : -advantage, clipped };
}

type AddToken = (t: number, loss: number, derivative: number, clipped: boolean) => void;

function policyLoss(
  name: string,
  options: PolicyLossOptions,
  usual: 'token' | 'sample',
  objective: (tokens: TokenBatch, clip: readonly [number, number], add: AddToken) => void,
): Loss {
  const { clip = 0.2, entropyBonus = 0, kl, average = usual } = options;
  const bounds = typeof clip === 'number' ? ([clip, clip] as const) : clip;
  return tokenLoss({
    name,
    fields: ['advantage', 'old_logprob', ...(kl === undefined ? [] : ['ref_logprob'])],
    totals: kl === undefined ? ['clipped'] : ['clipped', 'kl'],
    loss: (tokens, result) => {
      const weights = weightsOf(tokens, average);
      objective(tokens, bounds, (t, loss, derivative, clipped) => {
        result.loss[t] = weights[t]! * loss;
        result.derivatives.logprob[t] = weights[t]! * derivative;
        if (clipped) result.totals['clipped']! += 1;
      });
      addEntropy(tokens, result, weights, entropyBonus);
      if (kl !== undefined) addKl(tokens, result, weights, kl);
    },
    ...(average === 'token' ? {} : { divisor: (tokens: TokenBatch) => samplesOf(tokens).length }),
  });
}

function addEntropy({ entropy }: TokenBatch, result: TokenResult, weights: Float64Array, bonus: number): void {
  if (bonus === 0) return;
  weights.forEach((weight, t) => {
    if (weight === 0) return;
    result.loss[t]! -= weight * bonus * entropy[t]!;
    result.derivatives.entropy[t]! -= weight * bonus;
  });
}

function addKl(
  { logprob, batch }: TokenBatch,
  result: TokenResult,
  weights: Float64Array,
  { weight, kind = 'k3' }: NonNullable<PolicyLossOptions['kl']>,
): void {
  weights.forEach((share, t) => {
    if (share === 0) return;
    const { kl, derivative } = klEstimate(kind, logprob[t]!, batch['ref_logprob']![t]!);
    result.loss[t]! += share * weight * kl;
    result.derivatives.logprob[t]! += share * weight * derivative;
    result.totals['kl']! += kl;
  });
}

/** Numbers of the counted tokens of each sample that has any. */
function samplesOf({ batch, samples, seq }: TokenBatch): { sample: number; counted: number[] }[] {
  return Array.from({ length: samples }, (_, sample) => {
    const tokens = Array.from({ length: seq }, (_, t) => sample * seq + t);
    return { sample, counted: tokens.filter((t) => batch.mask[t] !== 0) };
  }).filter(({ counted }) => counted.length > 0);
}

/** What each token counts for: 1, or one over the counted tokens of its sample. */
function weightsOf(tokens: TokenBatch, average: 'token' | 'sample'): Float64Array {
  const weights = new Float64Array(tokens.logprob.length);
  for (const { counted } of samplesOf(tokens)) {
    for (const t of counted) weights[t] = average === 'token' ? 1 : 1 / counted.length;
  }
  return weights;
}

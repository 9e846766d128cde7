import { dividedKeys } from '../families/parameters.js';
import type { Problem } from './problem.js';
import type { ModelConfig, RunConfig } from './schema.js';

/** Rows and columns of a block of e4m3 that has one scale. */
const BLOCK = 128;

/** A multiple of this is a `seq_length` that kernels like, and that the products of the precision take. */
export function lengthStep({ mixed_precision: precision, model }: RunConfig): number {
  return precision === 'fp8_mixed' ? fp8LengthStep(model) : 64;
}

function fp8LengthStep({ context_parallel_size: cp }: ModelConfig): number {
  // A rank holds two chunks of every sequence.
  return BLOCK * (cp === 1 ? 1 : 2 * cp);
}

/** What `mixed_precision: fp8_mixed` needs of widths and lengths, so that no block depends on how a tensor is cut. */
export function fp8LayoutProblems(cfg: RunConfig): Problem[] {
  if (cfg.mixed_precision !== 'fp8_mixed') return [];
  const { model } = cfg;
  const { tensor_model_parallel_size: tp, context_parallel_size: cp, hidden_size: hidden, seq_length: seq } = model;
  const problems: Problem[] = [];
  const bad = (path: string, message: string): void => {
    problems.push({ code: 'MB_CONFIG_LAYOUT', place: undefined, path, message });
  };
  const rule = `not a multiple of ${BLOCK}, the width of fp8_mixed's blocks`;
  if (hidden % BLOCK !== 0) bad('model.hidden_size', `${hidden} is ${rule}; use bf16_mixed`);
  const divides = (size: number): boolean => dividedKeys(model).every((key) => model[key] % size === 0);
  const oddAt = (size: number) => cutWidths(model).find(({ width }) => (width / size) % BLOCK !== 0);
  const odd = oddAt(tp);
  // What tp does not divide at all has an error of its own.
  if (odd !== undefined && divides(tp)) {
    const found = `${tp} leaves ${odd.name} a width of ${odd.width / tp}, ${rule}`;
    const sizes = Array.from({ length: tp }, (_, i) => i + 1).filter((size) => divides(size) && !oddAt(size));
    const remedy = sizes.length === 0 ? 'use bf16_mixed' : `use ${sizes.join(', ')}, or bf16_mixed`;
    bad('model.tensor_model_parallel_size', `${found}; ${remedy}`);
  }
  const run = cp === 1 ? seq : seq / (2 * cp);
  if (Number.isInteger(run) && run % BLOCK !== 0) {
    const parts = cp === 1 ? `${seq} tokens are` : `at cp ${cp} a chunk of ${seq} tokens has ${run},`;
    bad('model.seq_length', `${parts} ${rule}; make it a multiple of ${fp8LengthStep(model)}, or use bf16_mixed`);
  }
  return problems;
}

function cutWidths(model: ModelConfig): { readonly name: string; readonly width: number }[] {
  const { num_attention_heads: heads, num_key_value_heads: kvHeads, head_dim: headDim } = model;
  return [
    { name: `the ${heads} heads of ${headDim}`, width: heads * headDim },
    { name: `the ${kvHeads} heads of keys and values of ${headDim}`, width: kvHeads * headDim },
    { name: `intermediate_size ${model.intermediate_size}`, width: model.intermediate_size },
  ];
}

/** Keys that contradict `mixed_precision`. */
export function checkFp8(
  { mixed_precision: precision, model }: RunConfig,
  bad: (path: string, message: string) => void,
): void {
  if (precision === 'fp8_mixed') {
    const { fp8_first_last_layers_bf16: ends, num_hidden_layers: layers } = model;
    if (2 * ends >= layers) {
      const found = `${ends} at either end are all of the ${layers} layers`;
      bad('model.fp8_first_last_layers_bf16', `${found}; lower it, or use bf16_mixed`);
    }
    if (!model.batch_invariant) return;
    const why = 'sampled tokens come of bf16 products, trained ones of e4m3';
    return bad('model.batch_invariant', `does not hold with fp8_mixed: ${why}; set it to false, or use bf16_mixed`);
  }
  // A resumed run has them from before: unset is not enough.
  for (const [key, unset] of [
    ['fp8_wgrad', true],
    ['fp8_first_last_layers_bf16', 2],
  ] as const) {
    if (model[key] === unset) continue;
    bad(`model.${key}`, `is for mixed_precision fp8_mixed, not ${precision}; set that, or this to ${unset}`);
  }
}

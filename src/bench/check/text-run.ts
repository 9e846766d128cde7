import type { CheckPlace } from './check.js';

export type Precision = 'fp32' | 'bf16_mixed' | 'fp8_mixed';

/**
 * A 0.6B on a GPU; what is quick on a CPU. Real text, so that the loss moves, and a learning rate at which it does not
 * plunge: on a slope of 10 % an update, a rounding that shifts the curve by a tenth of one is a percent of the loss.
 */
export function textRun({ device }: Pick<CheckPlace, 'device'>, updates: number, precision?: Precision): string[] {
  const recipe = device === 'cuda' ? ['qwen3-0.6b', 'model.seq_length=512'] : ['qwen3-tiny', 'model.seq_length=64'];
  return [
    ...recipe,
    'dataset.type=text',
    'dataset.path=builtin:moby-dick',
    'train.global_batch_size=8',
    'optimizer.lr=1e-4',
    'optimizer.min_lr=1e-5',
    `train.train_iters=${updates}`,
    ...(precision === undefined ? [] : [`mixed_precision=${precision}`]),
  ];
}

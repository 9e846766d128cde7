import type { RunConfig } from '../config/schema.js';

/**
 * Bytes a trained parameter of a layer's matrix: of the main parameter, 0 where that is the weight itself, of both moments, of its
 * gradient.
 * @param weight bytes of a weight
 */
export function stateBytes(
  { optimizer, ddp }: RunConfig,
  weight: number,
): { readonly main: number; readonly moments: number; readonly gradient: number } {
  const size = { fp32: 4, bf16: 2 };
  const main = size[optimizer.main_params_dtype];
  return {
    main: main === weight ? 0 : main,
    moments: size[optimizer.exp_avg_dtype] + size[optimizer.exp_avg_sq_dtype],
    gradient: size[ddp.grads_dtype],
  };
}

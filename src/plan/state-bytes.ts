import type { RunConfig } from '../config/schema.js';

/** Bytes a trained parameter of a layer's matrix: of the parameter itself beside the weights, of both moments, of its gradient. */
export function stateBytes({ optimizer, ddp }: RunConfig): {
  readonly main: number;
  readonly moments: number;
  readonly gradient: number;
} {
  const size = { fp32: 4, bf16: 2 };
  return {
    // In bf16 it is the weights themselves.
    main: optimizer.main_params_dtype === 'fp32' ? size.fp32 : 0,
    moments: size[optimizer.exp_avg_dtype] + size[optimizer.exp_avg_sq_dtype],
    gradient: size[ddp.grads_dtype],
  };
}

import type { Tensor } from '../engine/tensor.js';
import type { Weight } from './parameter.js';
import type { PerMicroBatch, StageEnv } from './stage-env.js';

/** The residual stream between modules: its value is residual + delta. The next norm adds them in its own kernel. */
export interface Stream {
  readonly residual: Tensor;
  readonly delta: Tensor | null;
}

/** Adds a pending delta to the residual stream and normalises the sum (RMSNorm, float32 inside). */
export class ResidualNorm {
  /** The sum: what the module adds its own output to. Also where a stage's input is put, when delta is null. */
  readonly x: PerMicroBatch;
  private readonly env: StageEnv;
  private readonly weight: Weight;
  private readonly y: PerMicroBatch;
  private readonly rstd: PerMicroBatch;

  /** @param keepInput slots of the sum when `full` recompute may not drop it (it is a layer's input), else null */
  constructor(env: StageEnv, key: string, weight: Weight, slots: number, keepInput: number | null) {
    const rows = env.sizes.localTokens;
    const shape = [rows, env.shape.hiddenSize];
    this.env = env;
    this.weight = weight;
    this.x = env.saved(`${key}.x`, shape, keepInput ?? slots, keepInput === null ? 'full' : 'never');
    this.y = env.saved('norm.y', shape, slots, 'selective');
    this.rstd = env.saved(`${key}.rstd`, [rows], slots, 'full', 'f32');
  }

  /** @returns the normalised sum, [localTokens, hidden] */
  forward(microBatch: number, input: Stream): Tensor {
    const { ops, shape } = this.env;
    const [x, y, rstd] = [this.x(microBatch), this.y(microBatch), this.rstd(microBatch)];
    if (input.delta === null) ops.rmsnorm(x, this.weight.data, y, rstd, shape.rmsNormEps);
    else ops.addRmsnorm(input.residual, input.delta, this.weight.data, x, y, rstd, shape.rmsNormEps);
    return y;
  }

  /** The output again, where it was not kept. */
  output(microBatch: number): Tensor {
    const y = this.y(microBatch);
    if (this.env.recompute === 'none') return y;
    const { ops, shape } = this.env;
    ops.rmsnorm(this.x(microBatch), this.weight.data, y, this.rstd(microBatch), shape.rmsNormEps);
    return y;
  }

  /**
   * Adds the gradient that comes through the norm to the residual stream's.
   * @param dy gradient of the output
   * @param dStream gradient of the sum, updated in place; overwritten where `overwrite`
   */
  backward(microBatch: number, dy: Tensor, dStream: Tensor, overwrite = false): void {
    const { weight } = this;
    this.env.ops.rmsnormBwd(
      {
        dy,
        x: this.x(microBatch),
        w: weight.data,
        rstd: this.rstd(microBatch),
        dx: dStream,
        dw: weight.grad,
        ws: this.env.reduceWorkspace(this.env.shape.hiddenSize),
      },
      { dx: !overwrite, dw: weight.accumulates() },
    );
  }
}

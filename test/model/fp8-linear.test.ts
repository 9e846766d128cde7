import { expect, test } from 'vitest';
import { openDevice } from '../../src/engine/open-device.js';
import { MemoryPlan } from '../../src/engine/memory-plan.js';
import { Ops } from '../../src/engine/ops.js';
import { modelShape } from '../../src/families/model-shape.js';
import { Linear } from '../../src/model/blocks/linear.js';
import { StageEnv } from '../../src/model/blocks/stage-env.js';
import { ContextParallel } from '../../src/model/parallel/context-parallel.js';
import { TensorParallel } from '../../src/model/parallel/tensor-parallel.js';
import { matrix, Weight } from '../../src/model/parameters/parameter.js';
import { qwen3TinyPretrainConfig } from '../../recipes/qwen3.js';

const [TOKENS, INPUTS, OUTPUTS] = [256, 256, 128];

/** Deviates of very different sizes along a row, so that blocks have different scales. */
function values(rows: number, cols: number, seed: number): Float32Array {
  return Float32Array.from({ length: rows * cols }, (_, i) => {
    const [row, col] = [Math.floor(i / cols), i % cols];
    return Math.sin(seed + 12.9898 * i) * 2 ** (((row >> 6) % 5) - 3 * (col >> 7));
  });
}

/** What e4m3 in blocks leaves of x [rows, cols]: the scale is the least power of two with |x| / scale <= 448. */
function rounded(x: ArrayLike<number>, cols: number, block: number): Float64Array {
  const out = new Float64Array(x.length);
  const rows = x.length / cols;
  for (let row = 0; row < rows; row += block) {
    for (let col = 0; col < cols; col += 128) {
      const places = Array.from({ length: block * 128 }, (_, i) => (row + (i >> 7)) * cols + col + (i & 127));
      const most = Math.max(...places.map((at) => Math.abs(x[at]!)));
      const scale = most === 0 ? 1 : 2 ** Math.ceil(Math.log2(most / 448));
      for (const at of places) out[at] = e4m3(x[at]! / scale) * scale;
    }
  }
  return out;
}

/** Three bits behind the leading one, of 2^-6 at least; ties to even. */
function e4m3(x: number): number {
  const step = 2 ** (Math.max(-6, Math.floor(Math.log2(Math.abs(x) || 1e-30))) - 3);
  const [low, rest] = [Math.floor(x / step), x / step - Math.floor(x / step)];
  const up = rest > 0.5 || (rest === 0.5 && low % 2 !== 0);
  return (low + (up ? 1 : 0)) * step;
}

function transposed(x: ArrayLike<number>, cols: number): Float64Array {
  const rows = x.length / cols;
  return Float64Array.from({ length: x.length }, (_, i) => x[(i % rows) * cols + Math.floor(i / rows)]!);
}

/** a [m, k] b [n, k]' */
function product(a: Float64Array, b: Float64Array, k: number): Float64Array {
  const [m, n] = [a.length / k, b.length / k];
  const out = new Float64Array(m * n);
  for (let i = 0; i < m; i++) {
    for (let j = 0; j < n; j++) {
      let sum = 0;
      for (let l = 0; l < k; l++) sum += a[i * k + l]! * b[j * k + l]!;
      out[i * n + j] = sum;
    }
  }
  return out;
}

test('a linear in e4m3 has the products of what its operands are rounded to, forward and backward', () => {
  const device = openDevice('cpu', 0, 1);
  try {
    const plan = new MemoryPlan();
    const sizes = { hidden_size: INPUTS, head_dim: 64, num_attention_heads: 4, num_key_value_heads: 4 };
    const alone = { size: 1, rank: 0 };
    const fp8 = { wgrad: true, bf16Ends: 0 };
    const env = new StageEnv({
      ...{ plan, ops: new Ops(device), shape: modelShape(qwen3TinyPretrainConfig(sizes)), head: 'language', fp8 },
      ...{ tp: new TensorParallel(alone, null, false), cp: new ContextParallel(alone, null) },
      ...{ batch: 1, seq: TOKENS, dtype: 'f32', recompute: 'none', attention: [], attentionWorkspaceBytes: 0 },
    });
    const tensor = (rows: number, cols: number) => plan.tensor('workspace', [rows, cols], 'f32');
    const [x, y, dy, dx] = [
      ...[tensor(TOKENS, INPUTS), tensor(TOKENS, OUTPUTS)],
      ...[tensor(TOKENS, OUTPUTS), tensor(TOKENS, INPUTS)],
    ] as const;
    const [w, dw] = [tensor(OUTPUTS, INPUTS), tensor(OUTPUTS, INPUTS)];
    const weight = new Weight([matrix('w', [OUTPUTS, INPUTS], null, alone)], w, dw);
    const linear = new Linear(env, { weight, bias: null, adapter: null }, fp8);
    plan.commit(device);
    const host = { x: values(TOKENS, INPUTS, 1), w: values(OUTPUTS, INPUTS, 2), dy: values(TOKENS, OUTPUTS, 3) };
    for (const [to, from] of [
      [x, host.x],
      [w, host.w],
      [dy, host.dy],
    ] as const)
      device.write(to, from);
    env.beginPass();
    // Twice, since the second gradient is added to the first.
    for (let i = 0; i < 2; i++) {
      linear.forward(x, y);
      linear.dgrad(dy, dx);
      linear.wgrad(dy, () => x);
    }

    const turned = {
      x: rounded(transposed(host.x, INPUTS), TOKENS, 128),
      w: rounded(transposed(host.w, INPUTS), OUTPUTS, 128),
      dy: rounded(transposed(host.dy, OUTPUTS), TOKENS, 1),
    };
    const expected = [
      [y, product(rounded(host.x, INPUTS, 1), rounded(host.w, INPUTS, 128), INPUTS)],
      [dx, product(rounded(host.dy, OUTPUTS, 1), turned.w, OUTPUTS)],
      [dw, product(turned.dy, turned.x, TOKENS).map((value) => 2 * value)],
    ] as const;
    for (const [found, wanted] of expected) {
      const read = new Float32Array(found.size);
      device.read(found, read);
      const most = Math.max(...wanted.map(Math.abs));
      expect(Math.max(...wanted.map((value, i) => Math.abs(value - read[i]!))) / most).toBeLessThan(2e-6);
    }

    // Weights are quantised once a pass: another one is seen in the next.
    const before = new Float32Array(y.size);
    const after = new Float32Array(y.size);
    device.read(y, before);
    device.write(w, values(OUTPUTS, INPUTS, 4));
    linear.forward(x, y);
    device.read(y, after);
    expect(after).toEqual(before);
    env.beginPass();
    linear.forward(x, y);
    device.read(y, after);
    expect(after).not.toEqual(before);
    plan.release();
  } finally {
    device.close();
  }
});

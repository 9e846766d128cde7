import type { LinearShape } from '../../families/parameters.js';
import { BenchBuffers } from './buffers.js';
import type { BenchSession } from './session.js';
import type { Timing } from './timer.js';

export const PASSES = ['forward', 'dgrad', 'wgrad'] as const;
export type Pass = (typeof PASSES)[number];

export interface GemmTiming {
  readonly layer: LinearShape;
  readonly pass: Pass;
  readonly flops: number;
  readonly timing: Timing;
}

/** Forward, dgrad and wgrad as training calls them: wgrad into float32, added to what is there. */
export function measureGemm(session: BenchSession, layer: LinearShape, pass: Pass, tokens: number): GemmTiming {
  const { ops, timer, act } = session;
  const { inputs, outputs } = layer;
  const buffers = new BenchBuffers(ops);
  const shapes = { x: [tokens, inputs], y: [tokens, outputs], w: [outputs, inputs] };
  // A weight's usual size: products of such numbers stay in range however often they are added up.
  const set = buffers.rotate(() => ({
    x: buffers.random(shapes.x, act),
    y: buffers.random(shapes.y, act, 0.02),
    w: buffers.random(shapes.w, pass === 'wgrad' ? 'f32' : act, 0.02),
  }));
  const run = (round: number): void => {
    const { x, y, w } = set(round);
    if (pass === 'forward') ops.linear(x, w, y);
    else if (pass === 'dgrad') ops.linearDgrad(y, w, x);
    else ops.linearWgrad(y, x, w, true);
  };
  const timing = buffers.use(() => timer.measure(run));
  return { layer, pass, flops: 2 * tokens * inputs * outputs, timing };
}

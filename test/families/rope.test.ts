import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { hfRopeChanges, readHfRope } from '../../src/families/hf-rope.js';
import { scaledRope } from '../../src/families/rope.js';

interface Case {
  rope_parameters: { rope_type: string } & Record<string, unknown>;
  head_dim: number;
  max_position_embeddings: number;
  seq_length: number;
  frequencies: number[];
  factor: number;
}

const cases = JSON.parse(readFileSync('fixtures/rope.json', 'utf8')) as Case[];
const named = cases.map((c) => ({ name: `${JSON.stringify(c.rope_parameters)} at ${c.seq_length}`, c }));

test.each(named)('$name turns as in transformers, and is written as it was read', ({ c }) => {
  const config = { max_position_embeddings: c.max_position_embeddings, rope_parameters: c.rope_parameters };
  const read = readHfRope(config);
  if ('problem' in read) throw new Error(read.problem);
  const { rope_theta: theta, rope_scaling: scaling } = read;
  const shape = { headDim: c.head_dim, ropeTheta: Number(theta), maxPositionEmbeddings: c.max_position_embeddings };
  const rope = scaledRope({ ...shape, ropeScaling: scaling }, c.seq_length);
  expect(rope?.factor).toBeCloseTo(c.factor, 12);
  expect(rope?.frequencies).toHaveLength(c.frequencies.length);
  // transformers' powers, quotients and blends are float32.
  const errors = c.frequencies.map((f, i) => Math.abs((rope?.frequencies[i] ?? NaN) / f - 1));
  expect(Math.max(...errors)).toBeLessThan(1.5e-6);

  expect(hfRopeChanges(config, read)).toEqual({});
  const written = { ...config, ...hfRopeChanges({ rope_parameters: { rope_type: 'default' } }, read) };
  expect(readHfRope(written)).toEqual(read);
});

import { expect, test } from 'vitest';
import { fileVersion, record, scalars } from '../../../src/job/worker/tensorboard-records.js';

// As read by TensorBoard 2.21: wall times 1700000000.5 and 1700000001.25; version brain.Event:2; of step 300 train/loss 2.5
// and train/lr 0.001.
const READ =
  '1800000000000000a37f4b220900002040fc54d9411a0d627261696e2e4576656e743a322b3531103200000000000000241956ec' +
  '0900005040fc54d94110ac022a240a110a0a747261696e2f6c6f737315000020400a0f0a08747261696e2f6c72156f12833a4b2df3ca';

test('event files are bytes that TensorBoard reads', () => {
  const values = [
    { tag: 'train/loss', value: 2.5 },
    { tag: 'train/lr', value: 0.001 },
  ];
  const bytes = Buffer.concat([record(fileVersion(1700000000.5)), record(scalars(1700000001.25, 300, values))]);
  expect(bytes.toString('hex')).toBe(READ);
});

test.each([0, 1, 127, 128, 2 ** 31, 2 ** 40])('step %i', (step) => {
  const event = Buffer.from(scalars(0, step, []));
  // wall time (9 bytes), then the step as a varint of tag 2.
  expect(event[9]).toBe(0x10);
  let found = 0n;
  let at = 10;
  for (let shift = 0n; ; shift += 7n) {
    const byte = event[at++]!;
    found |= BigInt(byte & 0x7f) << shift;
    if (byte < 0x80) break;
  }
  expect(Number(found)).toBe(step);
});

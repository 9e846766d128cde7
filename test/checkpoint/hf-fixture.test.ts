import { describe, expect, it, onTestFinished } from 'vitest';
import { modelParameters } from '../../src/families/parameters.js';
import { setupDataIterators } from '../../src/data/setup-data-iterators.js';
import { TOGETHER } from '../data/helpers.js';
import { FAMILY_FIXTURES, FIXTURES, loadFixture } from '../helpers/fixture.js';

// Data and safetensors together against torch: the loss by our targets and mask from torch's logits is torch's loss.
describe.each([...FIXTURES, ...FAMILY_FIXTURES])('%s', (name) => {
  const { shape, trajectory, tokens, expected } = loadFixture(name);

  it('its logits, our targets and our mask give its loss', async () => {
    const { loss, logits } = await expected();
    const { packed = false } = trajectory;
    const documents = packed ? { document_attention: true, mask_document_starts: true } : TOGETHER;
    const data = await setupDataIterators(
      { dataset: { type: 'jsonl', path: tokens, shuffle: false, seed: 0, ...documents }, tokenizer: { type: 'byte' } },
      {
        dpGroup: { rank: 0, size: 1 },
        vocabSize: shape.vocabSize,
        seqLength: trajectory.seq,
        globalBatchSize: trajectory.batch,
        microBatchSize: 2,
      },
    );
    onTestFinished(() => data.close());
    const batches = data.next(1);
    const targets = batches.flatMap((batch) => [...batch.targets]);
    const mask = batches.flatMap((batch) => [...batch.mask]);
    expect(logits.length).toBe(targets.length * shape.vocabSize);
    let [sum, count] = [0, 0];
    for (const [t, target] of targets.entries()) {
      const row = logits.subarray(t * shape.vocabSize, (t + 1) * shape.vocabSize);
      const logSum = Math.log(row.reduce((total, x) => total + Math.exp(x), 0));
      sum += mask[t]! * (logSum - row[target]!);
      count += mask[t]!;
    }
    expect(Math.abs(sum / count / loss - 1)).toBeLessThan(1e-6);
    expect(Math.abs(loss / trajectory.steps[0]!.loss - 1)).toBeLessThan(1e-6);
  });

  it('has a gradient of every parameter, whose norm is the grad norm', async () => {
    const { grads } = await expected();
    let squares = 0;
    for (const parameter of modelParameters(shape)) {
      const grad = grads.get(parameter.name);
      expect(grad?.length, parameter.name).toBe(parameter.shape.reduce((a, b) => a * b, 1));
      for (const x of grad!) squares += x * x;
    }
    expect(Math.abs(Math.sqrt(squares) / trajectory.steps[0]!.grad_norm - 1)).toBeLessThan(1e-6);
  });
});

// A worker that writes this rank's reduced gradients and logits of the first batch to the run's folder.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setUp } from './set-up.mjs';

export async function runWorker(context) {
  const { rank, runDir } = context;
  const run = await setUp(context);
  const { device, pgCollection, model, optimizer, data } = run;
  const logits = [];
  model.forwardBackward(data.next(1), {
    observe: (tensor, microBatch) => {
      const values = new Float32Array(tensor.size);
      device.read(tensor, values);
      logits.push({ microBatch, values });
    },
  });
  optimizer.reduceGradients();
  const { tp, cp, dp } = pgCollection;
  const index = { tp: tp.rank, cp: cp.rank, dp: dp.rank, gradients: [], logits: [] };
  let file = 0;
  const dump = (values) => {
    const name = `rank-${rank}/${file++}.f32`;
    writeFileSync(join(runDir, name), new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
    return name;
  };
  for (const { values, ...slice } of model.gradients()) index.gradients.push({ ...slice, file: dump(values) });
  for (const { values, microBatch } of logits) index.logits.push({ microBatch, file: dump(values) });
  writeFileSync(join(runDir, `rank-${rank}/dump.json`), JSON.stringify(index));
  await run.close();
}

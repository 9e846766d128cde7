/**
 * The best of several continuations: rows of different lengths share the slots of a cache, and the row of the highest
 * log-probability a token is printed. Prompts are bytes, weights those of a folder, or random ones.
 *
 *   node dist/examples/generation/best-of.js --nproc 2 --tp-size 2
 */
import {
  CommRuntime,
  generate,
  isMain,
  openDevice,
  provideDistributedModel,
  qwen3TinyPretrainConfig,
  runDistributed,
  runMain,
  setupGroups,
  type RunWorker,
} from '../../src/index.js';
import { numberOptions, processesToStart } from '../decentralized-pg/options.js';

const PROMPT = [...Buffer.from('Call me')];

export const runWorker: RunWorker = async (context) => {
  const { rank, worldSize, store, config } = context;
  const { rows: count } = context.options as { rows: number };
  const device = openDevice(context.device, context.deviceIndex, context.threads);
  const runtime = new CommRuntime({ rank, device, store, timeoutSeconds: 60 });
  const { pgCollection } = await setupGroups(config, { runtime, worldSize });
  runtime.watch();
  const generation = { slots: 4, context: 64 };
  const model = await provideDistributedModel(config, { pgCollection, device, generation, onlyGenerates: true });
  const prompts = Array.from({ length: count }, () => PROMPT);
  const rows = await generate(model, prompts, {
    maxTokens: 40,
    temperature: 0.7,
    topP: 0.9,
    seed: 1,
    stopTokens: [10],
  });
  const mean = (values: Float32Array): number => values.reduce((sum, value) => sum + value, 0) / values.length;
  const [best] = [...rows].sort((a, b) => mean(b.logprobs) - mean(a.logprobs));
  // Every rank of a replica has its rows; the first reports.
  if (pgCollection.tp.rank === 0 && pgCollection.pp.rank === 0 && best !== undefined) {
    context.emit({
      type: 'best',
      row: best.row,
      logprob: mean(best.logprobs),
      stop: best.stop,
      tokens: [...best.tokens],
    });
  }
  model.dispose();
  runtime.destroyAll();
  device.close();
};

if (isMain(import.meta.url)) {
  process.exitCode = await runMain(() => {
    const o = numberOptions({ nproc: undefined as number | undefined, 'tp-size': 1, 'pp-size': 1, rows: 8 });
    const config = qwen3TinyPretrainConfig({
      tensor_model_parallel_size: o['tp-size'],
      pipeline_model_parallel_size: o['pp-size'],
    });
    const nproc = processesToStart(o.nproc, 1);
    return runDistributed({ config, nproc, worker: import.meta.url, options: { rows: o.rows } });
  });
}

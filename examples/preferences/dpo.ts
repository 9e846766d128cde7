/**
 * Direct preference optimisation, on any layout: a model learns to prefer sequences that count upwards to ones that count
 * downwards, without being shown either as text to imitate. The reference is the model itself before the first update:
 * its log-probabilities of all pairs are taken once, forward only.
 *
 *   node dist/examples/preferences/dpo.js --nproc 2
 *   node dist/examples/preferences/dpo.js --nproc 4 --tp-size 2 --pp-size 2
 */
import {
  dpoLoss,
  isMain,
  openRun,
  qwen3TinyPretrainConfig,
  runDistributed,
  runMain,
  type Dataset,
  type MicroBatch,
  type RunConfig,
  type RunWorker,
  type Sample,
} from '../../src/index.js';
import { numberOptions, processesToStart } from '../decentralized-pg/options.js';

const PROMPT = 4;
const PAIRS = 32;

/** Samples 2i and 2i + 1: the same prompt, counted on upwards (chosen), and downwards (rejected). */
class Pairs implements Dataset {
  readonly length = 2 * PAIRS;
  readonly #inputIds: Int32Array;
  readonly #lossMask: Uint8Array;

  constructor({ model }: RunConfig) {
    this.#inputIds = new Int32Array(model.seq_length + 1);
    // Only the answer counts.
    this.#lossMask = new Uint8Array(model.seq_length + 1).fill(1, PROMPT);
  }

  sample(index: number): Sample {
    const first = 7 * Math.floor(index / 2);
    const direction = index % 2 === 0 ? 1 : -1;
    for (let j = 0; j < this.#inputIds.length; j++) {
      const step = j < PROMPT ? j : PROMPT - 1 + direction * (j - PROMPT + 1);
      this.#inputIds[j] = (((first + step) % 256) + 256) % 256;
    }
    return { inputIds: this.#inputIds, lossMask: this.#lossMask };
  }

  describe(): string {
    return `${PAIRS} pairs: counting upwards is better than downwards`;
  }

  close(): void {}
}

export const runWorker: RunWorker = async (context) => {
  const { config, options } = context;
  const { beta } = options as { beta: number };
  const run = await openRun(context, { loss: dpoLoss({ beta }), samples: { dataset: new Pairs(config) } });

  // Every rank scores; those of the last stage get the numbers, and they are the ones that compute the loss.
  const updates = (2 * PAIRS) / config.train.global_batch_size;
  const reference = Array.from({ length: updates }, (_, update) => run.model.logprobs(run.data.next(update + 1)));
  const withReference = (step: number): MicroBatch[] => {
    const scores = reference[(step - 1) % updates] ?? null;
    return run.data
      .next(step)
      .map((batch, m) => (scores === null ? batch : { ...batch, ref_logprob: scores[m] as Float32Array }));
  };

  await run.train({ data: { next: withReference } });
  await run.close();
};

if (isMain(import.meta.url)) {
  process.exitCode = await runMain(() => {
    const o = numberOptions({
      nproc: undefined as number | undefined,
      'tp-size': 1,
      'pp-size': 1,
      'train-iters': 12,
      beta: 0.1,
    });
    const config = qwen3TinyPretrainConfig({
      tensor_model_parallel_size: o['tp-size'],
      pipeline_model_parallel_size: o['pp-size'],
      train_iters: o['train-iters'],
      seq_length: 32,
      global_batch_size: 16,
      micro_batch_size: 4, // two pairs
      lr: 3e-4,
    });
    const nproc = processesToStart(o.nproc, o['tp-size'] * o['pp-size']);
    return runDistributed({ config, nproc, worker: import.meta.url, options: { beta: o.beta } });
  });
}

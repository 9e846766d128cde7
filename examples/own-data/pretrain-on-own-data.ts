/**
 * Samples of a program's own: sequences that count upwards, made on the fly. Everything else is what `mbridge pretrain`
 * does: layouts, checkpoints, resuming.
 *
 *   node dist/examples/own-data/pretrain-on-own-data.js --nproc 2
 */
import {
  isMain,
  pretrainWorker,
  qwen3TinyPretrainConfig,
  runDistributed,
  runMain,
  type Dataset,
  type RunConfig,
  type RunWorker,
  type Sample,
} from '../../src/index.js';
import { numberOptions, processesToStart } from '../decentralized-pg/options.js';

/** Sample i is the bytes i, i + 1, ... A sample depends on its index only, so that a run can be resumed anywhere. */
class Counting implements Dataset {
  readonly length = 256;
  readonly #inputIds: Int32Array;

  constructor(cfg: RunConfig) {
    this.#inputIds = new Int32Array(cfg.model.seq_length + 1);
  }

  sample(index: number): Sample {
    for (let j = 0; j < this.#inputIds.length; j++) this.#inputIds[j] = (index + j) % 256;
    return { inputIds: this.#inputIds };
  }

  describe(): string {
    return 'counting upwards';
  }

  close(): void {}
}

export const runWorker: RunWorker = (context) =>
  pretrainWorker(context, { dataset: new Counting(context.config), shuffleSeed: 1 });

if (isMain(import.meta.url)) {
  process.exitCode = await runMain(() => {
    const options = numberOptions({ nproc: undefined as number | undefined, 'train-iters': 10 });
    const config = qwen3TinyPretrainConfig({ train_iters: options['train-iters'], seq_length: 64 });
    return runDistributed({ config, nproc: processesToStart(options.nproc, 1), worker: import.meta.url });
  });
}

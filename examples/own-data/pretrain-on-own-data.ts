/**
 * Samples, a learning rate and callbacks of a program's own: sequences that count upwards, made on the fly. Everything else
 * is what `mbridge pretrain` does: layouts, checkpoints, resuming. Each rank is this program, started again.
 *
 *   node dist/examples/own-data/pretrain-on-own-data.js --nproc 2
 */
import {
  pretrain,
  qwen3TinyPretrainConfig,
  runMain,
  type Dataset,
  type RunConfig,
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

process.exitCode = await runMain(() => {
  const options = numberOptions({ nproc: undefined as number | undefined, 'train-iters': 10, 'stop-below': 0 });
  const updates = options['train-iters'];
  const config = qwen3TinyPretrainConfig({ train_iters: updates, seq_length: 64 });
  return pretrain(config, {
    nproc: processesToStart(options.nproc, 1),
    data: (context) => new Counting(context.config),
    shuffleSeed: 1,
    // One cycle: up for a third of the updates, then down.
    lr: (update) => 1e-3 * Math.min((3 * update) / updates, 1, (1.5 * (updates - update + 1)) / updates),
    callbacks: {
      onStep: ({ loss }, run) => {
        if (loss < options['stop-below']) run.requestStop();
      },
      onTrainEnd: ({ step, firstLoss, loss }, run) => {
        if (run.context.rank === 0) run.context.log.info(`loss ${firstLoss} -> ${loss} after ${step} updates`);
      },
    },
  });
});

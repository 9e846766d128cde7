import type { RunConfig } from './config/schema.js';
import type { Dataset } from './data/dataset.js';
import { isRankOf, thisProgram } from './job/shared/program-start.js';
import type { RunWorker, WorkerContext } from './job/worker/context.js';
import type { TrainingOptions } from './train/run-worker.js';
import { runDistributed, start, type OwnTraining, type RunDistributedOptions } from './run-distributed.js';

/** What a program may bring to its training beside the configuration. */
export interface PretrainOptions
  extends Omit<RunDistributedOptions, 'config'>, Pick<TrainingOptions, 'callbacks' | 'loss' | 'lr' | 'shuffleSeed'> {
  /** Samples, read instead of what the configuration's `dataset` names; or what makes them, on each rank. */
  data?: Dataset | ((context: WorkerContext) => Dataset | Promise<Dataset>);
}

/**
 * `mbridge pretrain` as a function: trains `config` on `nproc` processes.
 *
 * With `data`, `lr`, `loss` or `callbacks` each rank is this program, started again with its arguments: it runs up to this
 * call, which there trains and does not return. So a program makes one such call, and asks for the same on every rank.
 * @returns the exit code
 * @throws MbridgeError as {@link runDistributed}; MB_PROGRAM_DIFFERS (exit 2) on a rank that asks for another run
 */
export async function pretrain(config: RunConfig, options: PretrainOptions = {}): Promise<number> {
  const { data, lr, loss, callbacks, shuffleSeed, ...rest } = options;
  const brought = [data, lr, loss, callbacks].some((each) => each !== undefined);
  if (!brought) return runDistributed({ ...rest, config });
  const training = { lr, loss, callbacks, shuffleSeed };
  const given = Object.fromEntries(Object.entries(training).filter(([, value]) => value !== undefined));
  const runWorker: RunWorker = async (context) => {
    const dataset = typeof data === 'function' ? await data(context) : data;
    const { runWorker: train } = await import('./train/run-worker.js');
    return train(context, dataset === undefined ? given : { ...given, dataset });
  };
  const own: OwnTraining = { runWorker, data: data !== undefined, program: thisProgram(config) };
  if (isRankOf(own.program)) {
    // As in the executable of a rank: nothing of the program may run on after its training.
    process.exit(await (await import('./job/worker/entry.js')).runAsWorker(undefined, runWorker));
  }
  // Not read, so not looked for either.
  const read: RunConfig = own.data ? { ...config, dataset: { type: 'mock', seed: 0 } } : config;
  return start({ ...rest, config: read, own }, { data: true, trainable: true });
}

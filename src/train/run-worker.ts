import { CommRuntime } from '../comm/comm-runtime.js';
import { validateLayout } from '../config/layout.js';
import { setupDataIterators } from '../data/setup-data-iterators.js';
import { openDevice } from '../engine/open-device.js';
import { HyperCommGrid } from '../grid/hyper-comm-grid.js';
import { ProcessGroupCollection } from '../grid/process-group-collection.js';
import type { WorkerContext } from '../worker/context.js';
import { provideDistributedModel, setupOptimizer, type Groups } from './setup.js';
import { train } from './train.js';

/** What one rank of `mbridge pretrain` does: the library's own calls, in the order a program would make them. */
export async function runWorker(context: WorkerContext): Promise<void> {
  const { config: cfg, rank, worldSize, log } = context;
  const { tp, cp, dp, pp } = validateLayout(cfg, worldSize, { device: context.device });
  const device = openDevice(context.device, context.localRank, context.threads);
  const runtime = new CommRuntime({ rank, device, store: context.store, timeoutSeconds: cfg.dist.timeout_s });
  try {
    const grid = new HyperCommGrid({
      shape: [tp, cp, dp, pp],
      dimNames: ['tp', 'cp', 'dp', 'pp'],
      worldSize,
      backend: 'nccl',
    });
    const pgs: Groups = await ProcessGroupCollection.fromGrid(grid, runtime);
    const model = await provideDistributedModel(cfg, { pgCollection: pgs, device });
    const { optimizer, scheduler } = setupOptimizer(cfg, model, { pgCollection: pgs });
    const data = await setupDataIterators(cfg, {
      dpGroup: pgs.dp,
      vocabSize: cfg.model.vocab_size,
      seqLength: cfg.model.seq_length,
      globalBatchSize: cfg.train.global_batch_size,
      microBatchSize: cfg.train.micro_batch_size,
    });
    log.info(`${data.describe()}; ${cfg.train.train_iters} updates on tp ${tp}, dp ${dp}, pp ${pp}`);
    const result = await train({
      cfg,
      model,
      optimizer,
      scheduler,
      data,
      pgCollection: pgs,
      onStep: (event) => context.emit(event),
      onBegin: (step) => context.progress(step),
      wantsStop: () => context.stopRequested() !== 'no',
    });
    if (rank === 0) context.emit({ type: 'result', steps: result.step, loss: result.last?.loss ?? null });
    data.close();
    model.dispose();
    runtime.destroyAll();
    device.close();
  } catch (error) {
    // The others must not wait for this rank: their pending calls fail, and name the group.
    runtime.abortAll();
    throw error;
  }
}

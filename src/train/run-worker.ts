import { RunCheckpoints } from '../checkpoint/run/run-checkpoints.js';
import { CommRuntime } from '../groups/comm/comm-runtime.js';
import type { Device } from '../engine/device.js';
import { openDevice } from '../engine/open-device.js';
import type { WorkerContext } from '../job/worker/context.js';
import { PlacementCheck } from './placement-check.js';
import { provideDistributedModel, setupGroups, setupOptimizer, setupRunData } from './setup.js';
import { train } from './train.js';

/** What one rank of `mbridge pretrain` does: the library's own calls, in the order a program would make them. */
export async function runWorker(context: WorkerContext): Promise<void> {
  const { config: cfg, rank, worldSize, log } = context;
  const device = openDevice(context.device, context.deviceIndex, context.threads);
  const runtime = new CommRuntime({ rank, device, store: context.store, timeoutSeconds: cfg.dist.timeout_s });
  try {
    const { layout, pgCollection: pgs } = await setupGroups(cfg, { runtime, worldSize });
    runtime.watch();
    const { store } = context;
    const onSaved = context.saved.bind(context);
    const checkpoints = await RunCheckpoints.open({ cfg, layout, device, store, groups: pgs, log, onSaved });
    const { resume: checkpoint, position } = checkpoints;
    const model = await provideDistributedModel(cfg, { pgCollection: pgs, device, checkpoint });
    const { optimizer, scheduler } = setupOptimizer(cfg, model, { pgCollection: pgs });
    const data = await setupRunData(cfg, pgs, position);
    await checkpoints.begin(optimizer.state, data);
    const lastMillisecond = (cfg.train.exit_duration_in_mins ?? Infinity) * 60_000;
    log.info(
      `${data.describe()}; ${cfg.train.train_iters} updates on tp ${layout.tp}, dp ${layout.dp}, pp ${layout.pp}`,
    );
    if (position.startStep > cfg.train.train_iters) {
      log.warn(
        `nothing is left to train: the checkpoint has ${position.startStep - 1} updates; raise train.train_iters`,
      );
    }
    const wide = [pgs.tp, pgs.dpCp].filter(({ size }) => size > 1);
    if (device.kind === 'cuda' && wide.length > 0) {
      const ways = wide.map(
        ({ name, sharesMemory }) => `${name} ${sharesMemory ? 'over peer memory' : 'through NCCL'}`,
      );
      log.info(`collectives of ${ways.join(', ')}`);
    }
    const placement = cfg.dist.check_placement ? new PlacementCheck(model, pgs) : null;
    const result = await train({
      cfg,
      model,
      optimizer,
      scheduler,
      data,
      pgCollection: pgs,
      startStep: position.startStep,
      onStep: (event) => context.emit(event),
      onBegin: (step) => context.progress(step),
      endsAfter: (step) => context.endsAfter(step),
      // The clock counts from this process's start.
      wantsStop: () => performance.now() > lastMillisecond,
      onUpdate: async (step) => {
        placement?.check(step);
        await checkpoints.onUpdate(step);
      },
    });
    await checkpoints.finish(result.step);
    if (rank === 0) {
      const memory = deviceMemory(device, model.stage.plan.totalBytes, cfg.dist.ranks_per_gpu);
      context.emit({ type: 'result', steps: result.step, loss: result.last?.loss ?? null, ...memory });
    }
    data.close();
    placement?.dispose();
    model.dispose();
    runtime.destroyAll();
    device.close();
  } catch (error) {
    runtime.abandon(error);
  }
}

/** What a GPU of its own holds at the end of a run: the plan's arena, and libraries and communicators beside it. */
function deviceMemory(device: Device, arenaBytes: number, ranksPerGpu: number): Record<string, number> {
  if (device.kind === 'cpu' || ranksPerGpu > 1) return { arena_bytes: arenaBytes };
  const { totalBytes, freeBytes } = device.memory();
  const used = totalBytes - freeBytes;
  return { arena_bytes: arenaBytes, runtime_bytes: used - arenaBytes, device_bytes: used };
}

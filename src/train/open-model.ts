import { CommRuntime } from '../groups/comm/comm-runtime.js';
import type { Device } from '../engine/device.js';
import { openDevice } from '../engine/open-device.js';
import type { WorkerContext } from '../job/worker/context.js';
import type { Loss } from '../model/blocks/loss.js';
import type { DistributedModel } from '../model/stage/distributed-model.js';
import { provideDistributedModel, setupGroups, type Groups, type ProvideModelOptions } from './setup.js';

/** A model that is only evaluated, on this rank of all that the job has. */
export interface OpenModel {
  readonly device: Device;
  readonly pgCollection: Groups;
  readonly model: DistributedModel;
}

/**
 * Opens the model of a configuration without gradients and optimizer, calls `use`, and gives everything back. Every rank
 * calls it; where one fails, the others fail too.
 * @param lossOf what is made of the logits; cross entropy by default
 * @param generates what it generates; nothing by default
 * @throws MbridgeError as its parts do, and what `use` throws
 */
export async function withModel(
  context: WorkerContext,
  use: (open: OpenModel) => Promise<void>,
  lossOf?: (groups: Groups) => Loss,
  generates: Pick<ProvideModelOptions, 'generation' | 'onlyGenerates'> = {},
): Promise<void> {
  const { config: cfg, rank, worldSize, store } = context;
  const device = openDevice(context.device, context.deviceIndex, context.threads);
  const { timeout_s: timeoutSeconds, check_collectives: checkCollectives } = cfg.dist;
  const runtime = new CommRuntime({ rank, device, store, timeoutSeconds, checkCollectives });
  try {
    const { pgCollection } = await setupGroups(cfg, { runtime, worldSize });
    runtime.watch();
    const loss = lossOf === undefined ? {} : { loss: lossOf(pgCollection) };
    const model = await provideDistributedModel(cfg, { pgCollection, device, trainable: false, ...loss, ...generates });
    await use({ device, pgCollection, model });
    model.dispose();
    runtime.destroyAll();
    device.close();
  } catch (error) {
    runtime.abandon(error);
  }
}

/** For `goesOn` of an Evaluator: until the run is asked to stop, which all ranks hear of before the same batch. */
export function untilStopped(context: Pick<WorkerContext, 'endsAfter' | 'progress'>): {
  goesOn: (batch: number) => Promise<boolean>;
  readonly state: { stopped: boolean };
} {
  const state = { stopped: false };
  const goesOn = async (batch: number): Promise<boolean> => {
    state.stopped = batch > 1 && (await context.endsAfter(batch - 1));
    if (!state.stopped) context.progress(batch);
    return !state.stopped;
  };
  return { goesOn, state };
}

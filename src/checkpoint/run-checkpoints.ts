import { randomBytes } from 'node:crypto';
import type { Logger } from 'pino';
import type { Store } from '../comm/store.js';
import { modelShape } from '../config/model-shape.js';
import type { DataIterator } from '../data/data-iterator.js';
import type { Place } from '../model/parameter.js';
import type { OptimizerState } from '../optim/optimizer-state.js';
import { TEMPORARY } from './checkpoint-format.js';
import { findCheckpoint, listRoot, prepareRoot, PROBE, removeFolder } from './checkpoint-root.js';
import { CheckpointSaver } from './checkpoint-saver.js';
import { Checkpoint } from './checkpoint.js';
import { describeState, differences, type RunFacts } from './state-record.js';

/** What the checkpoints of a run need to know of it. All ranks of the model's grid give the same but for their place. */
export interface RunCheckpointsOptions extends RunFacts {
  readonly store: Store;
  /** Rank in the model's grid. */
  readonly place: Place;
  readonly log: Logger;
}

const SECOND_MS = 1000;

/**
 * Opens the checkpoint that `checkpoint.load` leads to. The first rank chooses, so that all take the same.
 * @returns null where the run starts fresh, which is said
 * @throws MbridgeError exit 7 for a damaged checkpoint, or one of another model
 */
export async function openResume(o: RunCheckpointsOptions): Promise<Checkpoint | null> {
  const { cfg, store, place, log } = o;
  const { load } = cfg.checkpoint;
  if (load === null) return null;
  const key = 'checkpoint/load';
  let folder: string;
  if (place.rank === 0) {
    const found = await findCheckpoint(load);
    for (const warning of found.warnings) log.warn(warning);
    if (found.folder === null) log.info(`${load} holds no checkpoint: the run starts fresh`);
    folder = found.folder ?? '';
    await store.set(key, Buffer.from(folder));
  } else {
    folder = Buffer.from(await store.get(key, cfg.dist.timeout_s * SECOND_MS)).toString();
  }
  if (folder === '') return null;
  const checkpoint = await Checkpoint.open(folder);
  checkpoint.check(modelShape(cfg));
  if (place.rank === 0) {
    const { step, consumed_samples: samples } = checkpoint.state;
    log.info(`resuming from ${folder}: ${step} updates, ${samples} samples`);
    const changed = step === 0 ? [] : differences(checkpoint.state, o);
    if (changed.length > 0) log.warn(`not bit for bit the run that was saved: ${changed.join('; ')}`);
  }
  return checkpoint;
}

/**
 * Makes `checkpoint.save` ready to be written to by every rank, before training. Unfinished saves in it are removed.
 * @returns null where nothing is saved
 * @throws MbridgeError exit 7 for a folder that cannot be written
 */
export async function openSaver(
  o: RunCheckpointsOptions & {
    readonly optimizer: OptimizerState;
    readonly tp: Place;
    readonly dpCp: Place;
    readonly data: DataIterator;
  },
): Promise<CheckpointSaver | null> {
  const { cfg, store, place, log, device } = o;
  const { save: root, async_save, keep_last, keep_every } = cfg.checkpoint;
  if (root === null) return null;
  await prepareRoot(root, place.rank);
  const key = 'checkpoint/token';
  if (place.rank === 0) {
    await tidy(root, cfg.checkpoint.load, log);
    await store.set(key, Buffer.from(randomBytes(6).toString('hex')));
  }
  const runToken = Buffer.from(await store.get(key, cfg.dist.timeout_s * SECOND_MS)).toString();
  return new CheckpointSaver({
    root,
    runToken,
    async: async_save,
    retention: { keepLast: keep_last, keepEvery: keep_every },
    device,
    optimizer: o.optimizer,
    place: { tp: o.tp, dpCp: o.dpCp, model: place },
    store,
    describe: (step, scalars) => {
      return describeState(o, { step, consumedSamples: o.data.consumedBefore(step + 1), scalars });
    },
    onSaved: ({ step, folder, bytes, seconds, removed }) => {
      const gone = removed.length === 0 ? '' : `; removed ${removed.length} older`;
      log.info(`saved update ${step} to ${folder}: ${(bytes / 1e6).toFixed(1)} MB in ${seconds.toFixed(1)} s${gone}`);
    },
  });
}

/** Removes what earlier runs left half done in the folder. A folder that has a checkpoint's name is only reported. */
async function tidy(root: string, load: string | null, log: Logger): Promise<void> {
  const listing = await listRoot(root);
  for (const name of listing?.unfinished ?? []) {
    if (name.startsWith(PROBE)) continue;
    const remove = name.startsWith(TEMPORARY);
    log.warn(`${root}: ${name} is a save or a removal that did not end; ${remove ? 'removed' : 'it is never loaded'}`);
    if (remove) await removeFolder(root, name);
  }
  if (listing !== null && listing.checkpoints.length > 0 && load === null) {
    const names = listing.checkpoints.map(({ name }) => name).join(', ');
    log.warn(`${root} holds checkpoints of an earlier run (${names}), and checkpoint.load is not set`);
  }
}

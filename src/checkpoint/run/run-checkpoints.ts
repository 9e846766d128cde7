import { randomBytes } from 'node:crypto';
import type { Logger } from 'pino';
import type { Store } from '../../job/rendezvous/store.js';
import { modelShape } from '../../families/model-shape.js';
import type { DataIterator } from '../../data/data-iterator.js';
import type { Place } from '../../model/parameters/parameter.js';
import type { OptimizerState } from '../../model/optim/optimizer-state.js';
import { TEMPORARY } from '../format/checkpoint-format.js';
import { findCheckpoint, listRoot, prepareRoot, removeFolder } from '../format/checkpoint-root.js';
import { CheckpointSaver } from './checkpoint-saver.js';
import { restoreOptimizer } from './checkpoint-weights.js';
import { Checkpoint } from '../format/checkpoint.js';
import { describeState, differences, type RunFacts } from '../format/state-record.js';

/** What the checkpoints of a run need to know of it. All ranks of the model's grid give the same but for their place. */
export interface RunCheckpointsOptions extends RunFacts {
  readonly store: Store;
  readonly groups: {
    /** All ranks of this model. */
    readonly intraDistOpt: Place;
    readonly tp: Place;
  };
  readonly log: Logger;
  /** Called on the model's first rank when a checkpoint is whole. */
  readonly onSaved?: (saved: { step: number; folder: string }) => void;
}

const SECOND_MS = 1000;

/** Resuming and saving, as the `checkpoint` section of a configuration asks for it. Every rank makes the same calls. */
export class RunCheckpoints {
  /** What the run resumes from; null where it starts fresh. */
  readonly resume: Checkpoint | null;
  /** The first update to run, and the samples read before it: for setupDataIterators and train. */
  readonly position: { readonly startStep: number; readonly consumedSamples: number };
  readonly #o: RunCheckpointsOptions;
  /** Agreed on by all ranks; null where nothing is saved. */
  readonly #runToken: string | null;
  #saver: CheckpointSaver | null = null;

  private constructor(o: RunCheckpointsOptions, runToken: string | null, resume: Checkpoint | null) {
    this.#o = o;
    this.#runToken = runToken;
    this.resume = resume;
    const { step = 0, consumed_samples: consumedSamples = 0 } = resume?.state ?? {};
    this.position = { startStep: step + 1, consumedSamples };
  }

  /**
   * Proves that `checkpoint.save` can be written by every rank, removes what unfinished saves left there, and opens the
   * checkpoint that `checkpoint.load` leads to: the first rank chooses, so that all take the same.
   * @throws MbridgeError exit 7 for a folder that cannot be written, a damaged checkpoint, or one of another model
   */
  static async open(o: RunCheckpointsOptions): Promise<RunCheckpoints> {
    const runToken = await prepareSaving(o);
    return new RunCheckpoints(o, runToken, await openResume(o));
  }

  /**
   * Sets the optimizer's state as it was saved (the weights are the model's to take from `resume`), and takes the
   * memory that saves are staged in.
   * @param optimizer as it is initialized
   */
  async begin(optimizer: OptimizerState, data: DataIterator): Promise<void> {
    const { cfg, groups, store, device, log, onSaved } = this.#o;
    if (this.resume !== null) await restoreOptimizer(this.resume, device, optimizer);
    await this.resume?.close();
    const { save: root, async_save, keep_last, keep_every } = cfg.checkpoint;
    if (root === null || this.#runToken === null) return;
    this.#saver = new CheckpointSaver({
      root,
      runToken: this.#runToken,
      async: async_save,
      retention: { keepLast: keep_last, keepEvery: keep_every },
      device,
      optimizer,
      place: { tp: groups.tp, model: groups.intraDistOpt },
      store,
      describe: (step, scalars) => {
        return describeState(this.#o, { step, consumedSamples: data.consumedBefore(step + 1), scalars });
      },
      onSaved: ({ step, folder, bytes, seconds, removed }) => {
        const gone = removed.length === 0 ? '' : `; removed ${removed.length} older`;
        onSaved?.({ step, folder });
        log.info(`saved update ${step} to ${folder}: ${(bytes / 1e6).toFixed(1)} MB in ${seconds.toFixed(1)} s${gone}`);
      },
    });
  }

  /** To be awaited after each update: saves where `checkpoint.save_interval` says so, and throws if a save failed. */
  async onUpdate(step: number): Promise<void> {
    const { save_interval: interval } = this.#o.cfg.checkpoint;
    this.#saver?.check();
    if (interval !== null && step % interval === 0) await this.#saver?.save(step);
  }

  /** Saves after the last update that was run, unless there was none, and waits until it is committed. */
  async finish(step: number): Promise<void> {
    if (step >= this.position.startStep) await this.#saver?.save(step);
    await this.#saver?.close();
  }
}

/** @returns what names this run's unfinished saves; null where nothing is saved */
async function prepareSaving({ cfg, store, groups, log }: RunCheckpointsOptions): Promise<string | null> {
  const { save: root, load } = cfg.checkpoint;
  if (root === null) return null;
  const { rank } = groups.intraDistOpt;
  await prepareRoot(root, rank);
  const key = 'checkpoint/token';
  if (rank === 0) {
    await tidy(root, load, log);
    await store.set(key, Buffer.from(randomBytes(6).toString('hex')));
  }
  return Buffer.from(await store.get(key, cfg.dist.timeout_s * SECOND_MS)).toString();
}

/** Removes what earlier runs left half done in the folder. A folder that has a checkpoint's name is only reported. */
async function tidy(root: string, load: string | null, log: Logger): Promise<void> {
  const listing = await listRoot(root);
  for (const name of listing?.unfinished ?? []) {
    const remove = name.startsWith(TEMPORARY);
    log.warn(`${root}: ${name} is a save or a removal that did not end; ${remove ? 'removed' : 'it is never loaded'}`);
    if (remove) await removeFolder(root, name);
  }
  if (listing !== null && listing.checkpoints.length > 0 && load === null) {
    const names = listing.checkpoints.map(({ name }) => name).join(', ');
    log.warn(`${root} holds checkpoints of an earlier run (${names}), and checkpoint.load is not set`);
  }
}

async function openResume(o: RunCheckpointsOptions): Promise<Checkpoint | null> {
  const { cfg, store, groups, log } = o;
  const { load } = cfg.checkpoint;
  if (load === null) return null;
  const isFirst = groups.intraDistOpt.rank === 0;
  const key = 'checkpoint/load';
  if (isFirst) {
    const found = await findCheckpoint(load);
    for (const warning of found.warnings) log.warn(warning);
    if (found.folder === null) log.info(`${load} holds no checkpoint: the run starts fresh`);
    await store.set(key, Buffer.from(found.folder ?? ''));
  }
  const folder = Buffer.from(await store.get(key, cfg.dist.timeout_s * SECOND_MS)).toString();
  if (folder === '') return null;
  const checkpoint = await Checkpoint.open(folder);
  checkpoint.check(modelShape(cfg));
  if (isFirst) {
    const { step, consumed_samples: samples } = checkpoint.state;
    log.info(`resuming from ${folder}: ${step} updates, ${samples} samples`);
    const changed = step === 0 ? [] : differences(checkpoint.state, o);
    if (changed.length > 0) log.warn(`not bit for bit the run that was saved: ${changed.join('; ')}`);
  }
  return checkpoint;
}

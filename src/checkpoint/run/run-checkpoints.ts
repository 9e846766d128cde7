import { randomBytes } from 'node:crypto';
import { realpathSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Logger } from '../../base/logger.js';
import { shortPath } from '../../base/short-path.js';
import type { MemoryKeeper } from '../../job/rendezvous/memory-keeper.js';
import type { Store } from '../../job/rendezvous/store.js';
import { adaptersOf } from '../../families/adapters.js';
import { modelSettings, modelShape } from '../../families/model-shape.js';
import type { DataIterator } from '../../data/data-iterator.js';
import type { Place } from '../../model/parameters/parameter.js';
import type { OptimizerState } from '../../model/optim/optimizer-state.js';
import { EXIT, MbridgeError } from '../../base/errors.js';
import type { FolderClaim } from '../../base/folder-claim.js';
import { isLeftoverName, STATE_FILE, type CheckpointState } from '../format/checkpoint-format.js';
import {
  claimSaves,
  findCheckpoint,
  listRoot,
  prepareRoot,
  removeFolder,
  restoreReplaced,
} from '../format/checkpoint-root.js';
import { CheckpointSaver } from './checkpoint-saver.js';
import { convertedState, restoreOptimizer } from './checkpoint-weights.js';
import { Checkpoint } from '../format/checkpoint.js';
import { openCopies } from '../format/memory-copy.js';
import { MemoryCopies } from './memory-copies.js';
import { lineageOf, refuseForeignLatest, refuseOtherLineage } from '../format/lineage.js';
import { checkSameData } from './same-data.js';
import { requireSameAdapters, requireSameModel } from '../format/same-model.js';
import { shapeOfState } from '../hf/hf-files.js';
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
  /** Keeps copies in memory, where `checkpoint.non_persistent_save_interval` asks for them. */
  readonly memory?: MemoryKeeper | null;
  /** Called on the model's first rank when a checkpoint is whole. */
  readonly onSaved?: (saved: { step: number; folder: string }) => void;
}

const SECOND_MS = 1000;
/** Codes of what is found where a copy is read; that the data has changed is no fault of it. */
const DAMAGED = /^MB_(CHECKPOINT_(?!DATA$)|SAFETENSORS_)/;

/** Resuming and saving, as the `checkpoint` section of a configuration asks for it. Every rank makes the same calls. */
export class RunCheckpoints {
  /** What the run resumes from; null where it starts fresh. */
  readonly resume: Checkpoint | null;
  /** Whether that is in memory, which nobody else can go on from. */
  readonly #fromMemory: boolean;
  /** The first update to run, and the samples read before it: for setupDataIterators and train. */
  readonly position: { readonly startStep: number; readonly consumedSamples: number };
  readonly #o: RunCheckpointsOptions;
  readonly #saving: Saving | null;
  #saver: CheckpointSaver | null = null;
  #copies: MemoryCopies | null = null;

  private constructor(o: RunCheckpointsOptions, saving: Saving | null, resume: Checkpoint | null) {
    this.#o = o;
    this.#saving = saving;
    this.resume = resume;
    this.#fromMemory = resume !== null && isCopy(o);
    const { step = 0, consumed_samples: consumedSamples = 0 } = resume?.state ?? {};
    this.position = { startStep: step + 1, consumedSamples };
  }

  /**
   * Claims `checkpoint.save` for this run, proves that every rank can write there, removes what unfinished saves left,
   * and opens the checkpoint that `checkpoint.load` leads to: the first rank chooses, so that all take the same.
   * @throws MbridgeError exit 7 for a folder that cannot be written, that another process saves in or that holds what
   * this run would replace, for a damaged checkpoint, or one of another model
   */
  static async open(o: RunCheckpointsOptions): Promise<RunCheckpoints> {
    const { save: root } = o.cfg.checkpoint;
    const { rank } = o.groups.intraDistOpt;
    const otherwise = 'give this run a folder of its own (checkpoint.save)';
    const claim = root !== null && rank === 0 ? claimSaves(root, otherwise) : null;
    try {
      if (root !== null) await prepareRoot(root, rank);
      if (claim !== null && root !== null) {
        await refuseForeignLatest(root);
        await restoreReplaced(root);
      }
      const resume = isCopy(o) ? openCopy(o) : await openResume(o);
      return new RunCheckpoints(o, root === null ? null : await prepareSaving(o, root, claim, resume), resume);
    } catch (error) {
      claim?.release();
      throw error;
    }
  }

  /**
   * Sets the optimizer's state as it was saved (the weights are the model's to take from `resume`), and takes the
   * memory that saves are staged in.
   * @param optimizer as it is initialized
   */
  async begin(optimizer: OptimizerState, data: DataIterator): Promise<void> {
    const { cfg, groups, store, device, log, onSaved, memory: keeper } = this.#o;
    if (this.resume !== null) {
      await restoreOptimizer(this.resume, device, optimizer);
      const converted = convertedState(this.resume, optimizer);
      if (groups.intraDistOpt.rank === 0 && converted !== '') log.info(`of the checkpoint, ${converted}`);
    }
    await this.resume?.close();
    const { async_save, keep_last, keep_every, overwrite, allow_changed_data: allowed } = cfg.checkpoint;
    // The committing rank's affair: the others need not read the data for it.
    const fingerprint = groups.intraDistOpt.rank === 0 ? data.fingerprint() : null;
    if (this.resume !== null && groups.intraDistOpt.rank === 0) {
      checkSameData(this.resume, fingerprint, allowed, (text) => log.warn(text));
    }
    const describe =
      (lineage: string) =>
      (step: number, scalars: Float64Array): CheckpointState => {
        const consumedSamples = data.consumedBefore(step + 1);
        return describeState(this.#o, { step, consumedSamples, scalars, lineage, data: fingerprint });
      };
    const timeoutMs = cfg.dist.timeout_s * SECOND_MS;
    const place = { tp: groups.tp, model: groups.intraDistOpt };
    const { non_persistent_save_interval: copied } = cfg.checkpoint;
    if (copied !== null && keeper != null) {
      const lineage = this.#saving?.lineage ?? randomBytes(16).toString('hex');
      this.#copies = new MemoryCopies({ keeper, device, optimizer, place, timeoutMs, describe: describe(lineage) });
    }
    if (this.#saving === null) return;
    const { root, runToken, lineage, claim } = this.#saving;
    this.#saver = new CheckpointSaver({
      root,
      runToken,
      async: async_save,
      lineage: overwrite ? null : lineage,
      claim,
      timeoutMs,
      warn: (text) => log.warn(text),
      retention: { keepLast: keep_last, keepEvery: keep_every },
      device,
      optimizer,
      place,
      store,
      describe: describe(lineage),
      onSaved: ({ step, folder, bytes, seconds, removed }) => {
        const gone = removed.length === 0 ? '' : `; removed ${removed.length} older`;
        onSaved?.({ step, folder });
        log.info(
          `saved update ${step} to ${shortPath(folder)}: ${(bytes / 1e6).toFixed(1)} MB in ${seconds.toFixed(1)} s${gone}`,
        );
      },
    });
    await this.#saver.begin();
  }

  /** To be awaited after each update: saves where `checkpoint.save_interval` says so, and throws if a save or a copy failed. */
  async onUpdate(step: number): Promise<void> {
    const { save_interval: interval } = this.#o.cfg.checkpoint;
    this.#saver?.check();
    this.#copies?.check();
    if (interval !== null && step % interval === 0) await this.#saver?.save(step);
  }

  /** Updates between copies in memory; null where none are made. */
  get copyInterval(): number | null {
    return this.#copies === null ? null : this.#o.cfg.checkpoint.non_persistent_save_interval;
  }

  /** To be awaited after each update of which there is to be a copy. */
  async copy(step: number): Promise<void> {
    await this.#copies?.copy(step);
  }

  /** To be called once the numbers of update `step` are shown: what goes on from a copy of it does not show them again. */
  told(step: number): void {
    this.#copies?.told(step);
  }

  /** What went wrong, where it did with a copy in memory: the run then goes on from a checkpoint on disk. */
  explain(error: unknown): unknown {
    const isOfCopy = this.#fromMemory && error instanceof MbridgeError && error.exitCode === EXIT.io;
    return isOfCopy && DAMAGED.test(error.code) ? badCopy(error) : error;
  }

  /** Saves after the last update that was run, unless there was none, waits until it is committed, and gives the folder back. */
  async finish(step: number): Promise<void> {
    if (step >= this.position.startStep || this.#fromMemory) await this.#saver?.save(step);
    await this.#saver?.close();
    await this.#copies?.close();
    this.#saving?.claim?.release();
  }
}

/** Where and as what a run saves. */
interface Saving {
  readonly root: string;
  /** Agreed on by all ranks: names this run's unfinished saves. */
  readonly runToken: string;
  /** Of what is saved; the first rank's alone counts. */
  readonly lineage: string;
  /** The first rank's. */
  readonly claim: FolderClaim | null;
}

async function prepareSaving(
  o: RunCheckpointsOptions,
  root: string,
  claim: FolderClaim | null,
  resume: Checkpoint | null,
): Promise<Saving> {
  const { cfg, store, log, head = 'language' } = o;
  const goesOn = resume !== null && (isCopy(o) || realpathSync(dirname(resume.folder)) === realpathSync(root));
  const lineage = goesOn ? lineageOf(resume.state) : randomBytes(16).toString('hex');
  // A job may have several models, each with a folder of its own.
  const key = `checkpoint/token/${root}`;
  if (claim !== null) {
    if (!cfg.checkpoint.overwrite) {
      const first = (resume?.state.step ?? 0) + 1;
      const model = modelSettings(cfg.model);
      await refuseOtherLineage(root, { lineage, model, head, first, last: cfg.train.train_iters });
    }
    await tidy(root, log);
    await store.set(key, Buffer.from(randomBytes(6).toString('hex')));
  }
  const runToken = Buffer.from(await store.get(key, cfg.dist.timeout_s * SECOND_MS)).toString();
  return { root, runToken, lineage, claim };
}

/** Removes what earlier runs left half done in the folder. A folder that has a checkpoint's name is only reported. */
async function tidy(root: string, log: Logger): Promise<void> {
  for (const name of (await listRoot(root))?.unfinished ?? []) {
    const remove = isLeftoverName(name);
    log.warn(`${root}: ${name} is a save or a removal that did not end; ${remove ? 'removed' : 'it is never loaded'}`);
    if (remove) await removeFolder(root, name);
  }
}

/** Whether the run goes on from copies in memory. */
function isCopy({ memory }: RunCheckpointsOptions): boolean {
  return memory?.step != null;
}

function openCopy({ memory, log, groups }: RunCheckpointsOptions): Checkpoint | null {
  if (memory?.step == null) return null;
  try {
    const copies = openCopies(memory.paths, memory.step);
    if (groups.intraDistOpt.rank === 0) {
      log.info(`going on from ${copies.folder}: ${copies.state.consumed_samples} samples`);
    }
    return copies;
  } catch (cause) {
    throw badCopy(cause);
  }
}

function badCopy(cause: unknown): unknown {
  if (!(cause instanceof MbridgeError)) return cause;
  return new MbridgeError('worker', 'MB_MEMORY_COPY', cause.message, {
    hint: 'a restart goes on from the last checkpoint on disk; look for faults of the memory',
    cause,
  });
}

async function openResume(o: RunCheckpointsOptions): Promise<Checkpoint | null> {
  const { cfg, store, groups, log } = o;
  const { load, save } = cfg.checkpoint;
  if (load === null) return null;
  const isFirst = groups.intraDistOpt.rank === 0;
  const key = `checkpoint/load/${save ?? ''}/${load}`;
  if (isFirst) {
    const found = await findCheckpoint(load);
    for (const warning of found.warnings) log.warn(warning);
    if (found.folder === null) log.info(`${load} holds no checkpoint: the run starts fresh`);
    await store.set(key, Buffer.from(found.folder ?? ''));
  }
  const folder = Buffer.from(await store.get(key, cfg.dist.timeout_s * SECOND_MS)).toString();
  if (folder === '') return null;
  const checkpoint = await Checkpoint.open(folder);
  const allowed = cfg.checkpoint.allow_model_changes;
  requireSameModel(join(folder, STATE_FILE), shapeOfState(checkpoint.state), modelShape(cfg), allowed);
  requireSameAdapters(join(folder, STATE_FILE), checkpoint.adapters, adaptersOf(cfg.peft));
  checkpoint.check(modelShape(cfg), [o.head ?? 'language']);
  if (isFirst) {
    const { step, consumed_samples: samples } = checkpoint.state;
    log.info(`resuming from ${folder}: ${step} updates, ${samples} samples`);
    const changed = step === 0 ? [] : differences(checkpoint.state, o);
    if (changed.length > 0) log.warn(`not bit for bit the run that was saved: ${changed.join('; ')}`);
  }
  return checkpoint;
}

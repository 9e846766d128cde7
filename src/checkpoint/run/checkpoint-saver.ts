import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Store } from '../../job/rendezvous/store.js';
import type { Device } from '../../engine/device.js';
import type { Place } from '../../model/parameters/parameter.js';
import type { OptimizerState } from '../../model/optim/optimizer-state.js';
import { MbridgeError } from '../../base/errors.js';
import { makeFolder } from '../../base/make-folder.js';
import { BackgroundWriter } from '../files/background-writer.js';
import { checkpointIoError } from '../files/checkpoint-error.js';
import { stepFolderName, TEMPORARY, type CheckpointState } from '../format/checkpoint-format.js';
import { publishLatest, sealFolder } from '../format/commit.js';
import { leaveContribution, takeContributions } from '../format/contribution.js';
import type { HostImage } from '../files/host-image.js';
import { prune, type Retention } from './prune.js';
import { planSave } from '../format/save-plan.js';
import { describeShards } from '../format/shard-layout.js';
import { StateSnapshot } from './state-snapshot.js';

/** How long the others may take to write their shards; a rank that is lost is noticed at once. */
const PEERS_WRITE_MS = 6 * 3600 * 1000;

export interface SaverOptions {
  /** `checkpoint.save`; prepared. */
  readonly root: string;
  /** The same on every rank and of this run alone: names the folders that are being written. */
  readonly runToken: string;
  readonly async: boolean;
  readonly retention: Retention;
  readonly device: Device;
  readonly optimizer: OptimizerState;
  readonly place: { readonly tp: Place; readonly model: Place };
  readonly store: Store;
  /** The training state at the end of an update, from the device's float64 scalars. */
  readonly describe: (step: number, scalars: Float64Array) => CheckpointState;
  /** Called on the committing rank. */
  readonly onSaved?: (saved: {
    step: number;
    folder: string;
    bytes: number;
    seconds: number;
    removed: readonly string[];
  }) => void;
}

/**
 * Saves the training state, all ranks together. A save is staged between two updates and written while the next ones
 * run; a second save waits until the first is committed. Every rank calls it in the same order.
 */
export class CheckpointSaver {
  readonly #o: SaverOptions;
  readonly #snapshot: StateSnapshot;
  readonly #writer = new BackgroundWriter();
  #inFlight: Promise<void> = Promise.resolve();
  #savedStep = -1;
  #failure: unknown;

  constructor(options: SaverOptions) {
    this.#o = options;
    const { optimizer, place } = options;
    if (optimizer.hasFrozen) {
      throw new MbridgeError('config', 'MB_CHECKPOINT_FROZEN', 'saving a model that is frozen in part is not built', {
        hint: 'leave checkpoint.save unset, or train all of its parameters',
      });
    }
    const plans = planSave({
      buckets: optimizer.buckets.map(({ bucket }) => bucket),
      tp: place.tp,
      rank: place.model.rank,
    });
    this.#snapshot = new StateSnapshot(options.device, optimizer, plans);
  }

  /**
   * Saves the state after update `step`, unless it was the last that was saved. Resolves when training may go on: once
   * copies of it are under way, or, where saves are not asynchronous, committed.
   * @throws MbridgeError exit 7, also for the save before, naming the file that could not be written
   */
  async save(step: number): Promise<void> {
    await this.finish();
    if (step === this.#savedStep) return;
    this.#savedStep = step;
    const started = performance.now();
    this.#inFlight = this.#write(step, this.#snapshot.take(), started).catch((error: unknown) => {
      this.#failure = error;
    });
    if (!this.#o.async) await this.finish();
  }

  /** Throws what went wrong in the background since; to be called between updates. */
  check(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** Waits until the last save is committed. */
  async finish(): Promise<void> {
    await this.#inFlight;
    this.check();
  }

  /** Waits as {@link finish} does, and gives back the writing thread and what saves are staged in. */
  async close(): Promise<void> {
    try {
      await this.finish();
    } finally {
      await this.#writer.close();
      this.#snapshot.release();
    }
  }

  async #write(step: number, staged: Promise<Float64Array>, started: number): Promise<void> {
    const { root, runToken, place, store, describe, retention, onSaved } = this.#o;
    const { rank, size } = place.model;
    const temporary = `${TEMPORARY}${stepFolderName(step)}-${runToken}`;
    const folder = join(root, temporary);
    const scalars = await staged;
    await this.#contribute(folder);
    const key = (what: string): string => `checkpoint/${temporary}/${what}`;
    if ((await store.add(key('written'), 1)) === size) await store.set(key('all'), new Uint8Array());
    if (rank !== 0) {
      await store.get(key('committed'), PEERS_WRITE_MS);
      return;
    }
    await store.get(key('all'), PEERS_WRITE_MS);
    const contributions = await takeContributions(folder, size);
    await sealFolder(folder, contributions, describe(step, scalars));
    await publishLatest(root, temporary, stepFolderName(step));
    const { removed } = await prune(root, retention);
    await store.set(key('committed'), new Uint8Array());
    const bytes = contributions.flatMap(({ files }) => Object.values(files)).reduce((sum, f) => sum + f.bytes, 0);
    const seconds = (performance.now() - started) / 1000;
    onSaved?.({ step, folder: join(root, stepFolderName(step)), bytes, seconds, removed });
  }

  /** Writes this rank's shards. From when they are announced, they are the committing rank's. */
  async #contribute(folder: string): Promise<void> {
    const { plans, images } = this.#snapshot;
    try {
      makeFolder(folder);
      const writes = plans.map(({ file }, i) => this.#writer.write(join(folder, file), images[i] as HostImage));
      await leaveContribution(folder, this.#o.place.model.rank, describeShards(plans, await Promise.all(writes)));
    } catch (cause) {
      // A full disk gets its space back; the folder goes when the next run begins.
      for (const { file } of plans) await rm(join(folder, file), { force: true }).catch(() => undefined);
      throw checkpointIoError('write', folder, cause);
    }
  }
}

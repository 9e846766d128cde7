import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Store } from '../../job/rendezvous/store.js';
import type { Device } from '../../engine/device.js';
import type { Place } from '../../model/parameters/parameter.js';
import type { OptimizerState } from '../../model/optim/optimizer-state.js';
import type { FolderClaim } from '../../base/folder-claim.js';
import { makeFolder } from '../../base/make-folder.js';
import { BackgroundWriter } from '../files/background-writer.js';
import { checkpointIoError } from '../files/checkpoint-error.js';
import { stepFolderName, temporaryFolderName, type CheckpointState } from '../format/checkpoint-format.js';
import { publishLatest, sealFolder } from '../format/commit.js';
import { leaveContribution, takeContributions } from '../format/contribution.js';
import { HostImage } from '../files/host-image.js';
import { refuseReplacing } from '../format/lineage.js';
import { prune, type Retention } from './prune.js';
import { SaveWatch } from './save-watch.js';
import { describeShards } from '../format/shard-layout.js';
import { planShards, StateSnapshot } from './state-snapshot.js';

export interface SaverOptions {
  /** `checkpoint.save`; prepared. */
  readonly root: string;
  /** The same on every rank and of this run alone: names the folders that are being written. */
  readonly runToken: string;
  readonly async: boolean;
  /** Whose checkpoints may be replaced and removed; null: anybody's. */
  readonly lineage: string | null;
  /** The committing rank's; checked before the folder is changed. */
  readonly claim: FolderClaim | null;
  /** Silence after which a rank that is waited for counts as hung. */
  readonly timeoutMs: number;
  readonly warn: (text: string) => void;
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
  readonly #snapshot: StateSnapshot<SharedArrayBuffer>;
  readonly #writer = new BackgroundWriter();
  readonly #watch: SaveWatch;
  #inFlight: Promise<void> = Promise.resolve();
  /** Callers that wait for the save in flight. */
  #waiting = 0;
  #savedStep = -1;
  #failure: unknown;

  constructor(options: SaverOptions) {
    this.#o = options;
    const { optimizer, place } = options;
    const plans = planShards(optimizer, { tp: place.tp, rank: place.model.rank });
    this.#snapshot = new StateSnapshot(options.device, optimizer, plans, ({ bytes: size }) => HostImage.shared(size));
    this.#snapshot.pin();
    const { store, runToken, timeoutMs, warn } = options;
    const awaited = (): boolean => this.#waiting > 0;
    const { rank, size } = place.model;
    this.#watch = new SaveWatch({ rank, size, store, runToken, timeoutMs, warn, awaited });
  }

  /** To be called once, before the first save. */
  async begin(): Promise<void> {
    await this.#watch.announce();
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
    const staged = this.#snapshot.take();
    this.#inFlight = this.#watch
      .during(() => this.#write(step, staged, started))
      .catch((error: unknown) => {
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
    this.#waiting++;
    await this.#inFlight;
    this.#waiting--;
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
    const { root, runToken, place, store, onSaved } = this.#o;
    const { rank } = place.model;
    const temporary = temporaryFolderName(step, runToken);
    const scalars = await staged;
    await this.#contribute(join(root, temporary));
    const key = (what: string): string => `checkpoint/${temporary}/${what}`;
    const what = `saving update ${step}`;
    if (await this.#watch.contribute(temporary)) await store.set(key('all'), new Uint8Array());
    if (rank !== 0) {
      await this.#watch.wait(key('committed'), what, 'first');
      return;
    }
    await this.#watch.wait(key('all'), what, 'writers');
    const { bytes, removed } = await this.#commit(step, temporary, scalars);
    await store.set(key('committed'), new Uint8Array());
    const seconds = (performance.now() - started) / 1000;
    onSaved?.({ step, folder: join(root, stepFolderName(step)), bytes, seconds, removed });
  }

  /** Makes a checkpoint of what all ranks have written, under its name. */
  async #commit(
    step: number,
    temporary: string,
    scalars: Float64Array,
  ): Promise<{ bytes: number; removed: readonly string[] }> {
    const { root, place, describe, retention, lineage, claim } = this.#o;
    const [folder, name] = [join(root, temporary), stepFolderName(step)];
    try {
      claim?.check();
      const contributions = await takeContributions(folder, place.model.size);
      await sealFolder(folder, contributions, describe(step, scalars));
      if (lineage !== null) await refuseReplacing(root, name, lineage);
      await publishLatest(root, temporary, name);
      const { removed } = await prune(root, retention, { lineage });
      const bytes = contributions.flatMap(({ files }) => Object.values(files)).reduce((sum, f) => sum + f.bytes, 0);
      return { bytes, removed };
    } catch (cause) {
      // A full disk gets its space back.
      await rm(folder, { recursive: true, force: true }).catch(() => undefined);
      throw checkpointIoError('write', folder, cause);
    }
  }

  /** Writes this rank's shards. From when they are announced, they are the committing rank's. */
  async #contribute(folder: string): Promise<void> {
    const { plans, images } = this.#snapshot;
    try {
      makeFolder(folder);
      const writes = plans.map(({ file }, i) =>
        this.#writer.write(join(folder, file), images[i] as HostImage<SharedArrayBuffer>),
      );
      await leaveContribution(folder, this.#o.place.model.rank, describeShards(plans, await Promise.all(writes)));
    } catch (cause) {
      // A full disk gets its space back; the folder goes when the next run begins.
      for (const { file } of plans) await rm(join(folder, file), { force: true }).catch(() => undefined);
      throw checkpointIoError('write', folder, cause);
    }
  }
}

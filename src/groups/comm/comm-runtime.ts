import type { Device } from '../../engine/device.js';
import { MbridgeError } from '../../base/errors.js';
import { NON_MEMBER, type GroupRuntime, type NonMember } from '../grid/process-group.js';
import { CommGroup } from './comm-group.js';
import { communicatorKey, type Network, type Store } from '../../job/rendezvous/store.js';

const WATCH_INTERVAL_MS = 500;

export interface CommRuntimeOptions {
  /** This process's global rank. */
  rank: number;
  device: Device;
  store: Store;
  /** Seconds until a collective counts as hung, and until a rendezvous fails. */
  timeoutSeconds: number;
  /** Prefix of the store's keys, 'job' by default: a second runtime of one worker needs another. */
  scope?: string;
  /** Whether each collective is compared between its members before it is made: slow, for debugging. */
  checkCollectives?: boolean;
}

/**
 * Makes communicators: ids go through the store under (key, member list), so that neither the order of creation nor
 * another grid's groups can be mixed up. The same group may be made again, for another model or after
 * {@link destroyAll}: each time it has a communicator of its own.
 */
export class CommRuntime implements GroupRuntime<CommGroup> {
  readonly rank: number;
  readonly backend: string;
  readonly device: Device;
  readonly #options: CommRuntimeOptions;
  readonly #groups: CommGroup[] = [];
  #watching: number | null = null;
  /** How often a group has been made, by its key in the store. The members count alike: each makes all of them. */
  readonly #made = new Map<string, number>();

  constructor(options: CommRuntimeOptions) {
    this.rank = options.rank;
    this.device = options.device;
    this.backend = 'nccl';
    this.#options = options;
  }

  async createGroups(key: string, groups: readonly (readonly number[])[]): Promise<CommGroup | NonMember> {
    const ranks = groups.find((members) => members.includes(this.rank));
    if (ranks === undefined) return NON_MEMBER;
    const index = ranks.indexOf(this.rank);
    const network = await this.#networkBetween(ranks);
    const handle = ranks.length === 1 ? null : await this.#connect(key, ranks, index, network);
    const group = new CommGroup(key, ranks, index, this.device, handle, network !== null);
    this.#groups.push(group);
    return group;
  }

  /**
   * Watches all groups of this runtime made so far from a native thread, which aborts them when one fails or does not
   * finish in time. To be called once the groups are made, and again when more are: an earlier watch, and what it found,
   * are forgotten. Other runtimes of the process have watches of their own.
   */
  watch(): void {
    this.#unwatch();
    const comms = this.#groups.map((group) => group.communicator).filter((handle) => handle !== null);
    if (comms.length > 0) this.#watching = this.device.binding.watch(comms, WATCH_INTERVAL_MS);
  }

  #unwatch(): void {
    if (this.#watching !== null) this.device.binding.watchStop(this.#watching);
    this.#watching = null;
  }

  /**
   * The way out after a failure: makes all pending calls fail, here and at the peers, so that nobody waits for this
   * rank, and throws the cause: what the watching thread found, where it made `error` happen by aborting groups.
   */
  abandon(error: unknown): never {
    try {
      // Before our own aborts, which the watching thread would find too.
      if (this.#watching !== null) this.device.binding.watchCheck(this.#watching);
    } finally {
      for (const group of this.#groups) group.abort();
    }
    throw error;
  }

  destroyAll(): void {
    this.#unwatch();
    for (const group of this.#groups) group.destroy();
    this.#groups.length = 0;
  }

  /** The network between ranks of several nodes; null within a node. */
  async #networkBetween(ranks: readonly number[]): Promise<Network | null> {
    const { store, timeoutSeconds } = this.#options;
    const { network } = store;
    if (network === null || ranks.length === 1) return null;
    const nodes = await Promise.all(ranks.map((rank) => network.nodeOf(rank, timeoutSeconds * 1000)));
    return new Set(nodes).size > 1 ? network : null;
  }

  async #connect(key: string, ranks: readonly number[], index: number, network: Network | null): Promise<number> {
    const { store, device, timeoutSeconds, scope = 'job', checkCollectives = false } = this.#options;
    const binding = device.binding;
    const name = communicatorKey(`${scope}/${key}`, ranks);
    const times = (this.#made.get(name) ?? 0) + 1;
    this.#made.set(name, times);
    const storeKey = `${name}/${times}`;
    // NCCL finds its own way.
    const ours = device.kind === 'cpu' ? network : null;
    let id: Uint8Array;
    if (index === 0) {
      id = binding.commMakeId(device.handle, ours?.address);
      await store.set(storeKey, id);
    } else {
      id = await store.get(storeKey, timeoutSeconds * 1000);
    }
    if (ours !== null) id.set(ours.key(storeKey), COMM_KEY_AT);
    const members = Int32Array.from(ranks);
    try {
      const comm = await binding.commCreate(device.handle, id, key, index, members, timeoutSeconds);
      if (checkCollectives) binding.commCompare(comm, `${key} [${ranks.join(',')}]`, index, members);
      return comm;
    } catch (error) {
      throw explained(error);
    }
  }
}

/** Where a CPU's id has the group's key (native/core/abi.h). */
const COMM_KEY_AT = 96;

/** NCCL before 2.30 refuses two ranks on one GPU. */
function explained(error: unknown): unknown {
  if (!(error instanceof Error) || !error.message.includes('Duplicate GPU')) return error;
  return new MbridgeError('environment', 'MB_SHARED_GPU', error.message, {
    hint: 'ranks that share a GPU (dist.ranks_per_gpu) need NCCL 2.30 or newer; `mbridge doctor` shows which one was found',
    cause: error,
  });
}

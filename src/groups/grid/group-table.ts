import { gridError, sameRanks } from './dimensions.js';
import { NON_MEMBER, type GroupRuntime, type NonMember, type ProcessGroup } from './process-group.js';

interface Entry {
  readonly lists: readonly (readonly number[])[];
  readonly pending: Promise<ProcessGroup | NonMember>;
  /** Set once `pending` has resolved. */
  group?: ProcessGroup | NonMember;
}

/**
 * The groups a rank holds of one grid, by key. A key whose every rank list some earlier key also has shares that
 * key's groups: the same ranks get one communicator, not two. All ranks decide alike, since they see the same lists.
 */
export class GroupTable {
  readonly #entries = new Map<string, Entry>();

  /**
   * Creates the groups of a key once. Resolves with this rank's group.
   * @throws MbridgeError MB_GRID_CREATED if the key was created before, whatever came of it
   */
  async create(
    key: string,
    lists: readonly (readonly number[])[],
    runtime: GroupRuntime,
    runtimeKey: string,
  ): Promise<ProcessGroup | NonMember> {
    if (this.#entries.has(key)) {
      throw gridError('CREATED', `process groups '${key}' have already been created`, {
        hint: 'use getPg to look them up',
      });
    }
    const shared = [...this.#entries.values()].find((entry) => containsAll(entry.lists, lists));
    const isMember = lists.some((list) => list.includes(runtime.rank));
    let pending: Promise<ProcessGroup | NonMember>;
    if (shared !== undefined) pending = isMember ? shared.pending : Promise.resolve(NON_MEMBER);
    else pending = runtime.createGroups(runtimeKey, lists);
    const entry: Entry = { lists, pending };
    this.#entries.set(key, entry);
    entry.group = await pending;
    return entry.group;
  }

  /** @throws MbridgeError MB_GRID_NOT_CREATED */
  get(key: string): ProcessGroup | NonMember {
    const group = this.#entries.get(key)?.group;
    if (group !== undefined) return group;
    throw gridError('NOT_CREATED', `process groups '${key}' have not been created`, {
      hint: 'every rank of the grid calls createPg first, at one place: a lookup never creates',
    });
  }

  /** Destroys each group once, the latest first, and forgets all keys. */
  destroy(): void {
    const groups = new Set([...this.#entries.values()].map((entry) => entry.group).reverse());
    this.#entries.clear();
    for (const group of groups) {
      if (group !== undefined && group !== NON_MEMBER) group.destroy();
    }
  }
}

function containsAll(lists: readonly (readonly number[])[], wanted: readonly (readonly number[])[]): boolean {
  return wanted.every((want) => lists.some((list) => sameRanks(list, want)));
}

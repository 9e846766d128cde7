import {
  NON_MEMBER,
  type GroupRuntime,
  type NonMember,
  type ProcessGroup,
} from '../../../src/groups/grid/process-group.js';

export interface TestGroup extends ProcessGroup {
  readonly destroyed: () => number;
}

/**
 * All ranks of a world in one process. As with real communicators, creating a group resolves only when every member
 * has asked for it under the same key and list; `calls` records what each rank asked for.
 */
export class Rendezvous {
  readonly calls: string[][];
  readonly #joined = new Map<string, { count: number; resolve: () => void; all: Promise<void> }>();

  constructor(worldSize: number) {
    this.calls = Array.from({ length: worldSize }, () => []);
  }

  runtime(rank: number, backend?: string): GroupRuntime<TestGroup> {
    const createGroups = async (
      key: string,
      groups: readonly (readonly number[])[],
    ): Promise<TestGroup | NonMember> => {
      this.calls[rank]!.push(key);
      const ranks = groups.find((members) => members.includes(rank));
      if (ranks === undefined) return NON_MEMBER;
      await this.#join(`${key} ${ranks.join()}`, ranks.length);
      let destroyed = 0;
      return {
        name: key,
        ranks,
        rank: ranks.indexOf(rank),
        size: ranks.length,
        destroy: () => void destroyed++,
        destroyed: () => destroyed,
      };
    };
    return { rank, createGroups, ...(backend === undefined ? {} : { backend }) };
  }

  async #join(id: string, members: number): Promise<void> {
    let entry = this.#joined.get(id);
    if (entry === undefined) {
      let resolve = (): void => undefined;
      const all = new Promise<void>((done) => (resolve = done));
      entry = { count: 0, resolve, all };
      this.#joined.set(id, entry);
    }
    if (++entry.count === members) entry.resolve();
    await entry.all;
  }
}

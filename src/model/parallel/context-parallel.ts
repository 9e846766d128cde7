import type { CommGroup, PointToPoint } from '../../groups/comm/comm-group.js';
import type { AttentionSizes } from '../../engine/attention-sizes.js';
import { STREAM } from '../../engine/device.js';
import type { Tensor } from '../../engine/tensor.js';
import { Beside, type Pending } from './beside.js';

/** Chunks of a sequence that a rank holds: one from the front, one from the back. */
const CHUNKS = 2;

/** How keys and values come to the ranks: all at once, or of one rank after the other. */
export type CpCommType = 'all_gather' | 'p2p';

/** What a rank does with the keys of another one. Chunks are counted among those that a rank holds: 0 or 1. */
export interface KeyTurn {
  /** From 1: how far away the two are. */
  readonly number: number;
  /** Whose keys it sees in this turn, and how many chunks of them, from the front. */
  readonly from: number;
  readonly receives: 1 | 2;
  /** Who sees its own, and how many. */
  readonly to: number;
  readonly sends: 1 | 2;
  /** Which chunk's queries see which chunk's keys, all of them. */
  readonly blocks: readonly (readonly [queries: number, keys: number])[];
}

/**
 * Every sequence is cut into 2 * size chunks, and rank r holds chunks r and 2 * size - 1 - r of each: what a causal
 * attention has to do is then the same on all ranks. A rank's tokens lie chunk after chunk, [2][batch][chunk], so that the
 * queries of one chunk of all sequences are one matrix. The group's collectives run beside the compute stream.
 */
export class ContextParallel {
  readonly size: number;
  readonly rank: number;
  readonly commType: CpCommType;
  readonly #beside: Beside;

  /** @param group null while only planning: sizes are known, nothing can be communicated */
  constructor(place: { size: number; rank: number }, group: CommGroup | null, commType: CpCommType = 'all_gather') {
    this.size = place.size;
    this.rank = place.rank;
    this.commType = commType;
    this.#beside = new Beside(group);
  }

  /** Gives back what the collectives took from the device; a later one takes it again. */
  dispose(): void {
    this.#beside.dispose();
  }

  /** Numbers of the chunks that a rank holds, in the order in which they lie. */
  chunksOf(rank: number): readonly [front: number, back: number] {
    return [rank, CHUNKS * this.size - 1 - rank];
  }

  /** Tokens of a chunk of a sequence of `seq`. */
  chunk(seq: number): number {
    return seq / (CHUNKS * this.size);
  }

  /**
   * What a rank's calls of the attention compute: whole sequences, where they are not cut; else a chunk's queries over its own
   * keys, and over all keys of an earlier chunk.
   */
  attention(seq: number): readonly Pick<AttentionSizes, 'seq' | 'keys' | 'offset'>[] {
    if (this.size === 1) return [{ seq }];
    const chunk = this.chunk(seq);
    return [{ seq: chunk }, { seq: chunk, keys: chunk, offset: chunk }];
  }

  /** For each of a rank's tokens, this one's by default, its number in a micro-batch of `batch` whole sequences of `seq`. */
  tokensOf(batch: number, seq: number, rank = this.rank): Int32Array {
    const tokens = new Int32Array((batch * seq) / this.size);
    const chunk = this.chunk(seq);
    let at = 0;
    for (const number of this.chunksOf(rank)) {
      for (let sample = 0; sample < batch; sample++) {
        for (let i = 0; i < chunk; i++) tokens[at++] = sample * seq + number * chunk + i;
      }
    }
    return tokens;
  }

  /**
   * A turn: the keys of the rank `number` before this one. Of an earlier rank, both chunks of queries see the front
   * chunk; of a later one, the back chunk sees both. That is the same work, and each rank sends what the other sees.
   */
  turn(number: number): KeyTurn {
    const { size, rank } = this;
    const [from, to] = [(rank - number + size) % size, (rank + number) % size];
    const earlier = from < rank;
    return {
      number,
      from,
      receives: earlier ? 1 : 2,
      to,
      sends: rank < to ? 1 : 2,
      blocks: earlier
        ? [
            [0, 0],
            [1, 0],
          ]
        : [
            [1, 0],
            [1, 1],
          ],
    };
  }

  /** Of all other ranks. */
  turns(): readonly KeyTurn[] {
    return Array.from({ length: this.size - 1 }, (_, i) => this.turn(i + 1));
  }

  /** @param all becomes every rank's `own`, one after the other */
  startGather(own: Tensor, all: Tensor): Pending {
    return this.#beside.start(all, (group) => group.allGather(own, all, STREAM.tensor));
  }

  /** The result is what `transfers` fill. */
  startExchange(result: Tensor, transfers: readonly PointToPoint[]): Pending {
    return this.#beside.start(result, (group) => group.exchange(transfers, STREAM.tensor));
  }

  /** @param own this rank's part of `all`: becomes that of the sum over the ranks; the rest is of no meaning afterwards */
  startReduceScatter(all: Tensor, own: Tensor): Pending {
    return this.#beside.start(own, (group) => group.reduceScatter(all, own, STREAM.tensor));
  }
}

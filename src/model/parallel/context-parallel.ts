import type { CommGroup } from '../../groups/comm/comm-group.js';
import type { AttentionSizes } from '../../engine/attention-sizes.js';
import { STREAM } from '../../engine/device.js';
import type { Tensor } from '../../engine/tensor.js';
import { Beside, type Pending } from './beside.js';

/** Chunks of a sequence that a rank holds: one from the front, one from the back. */
const CHUNKS = 2;

/**
 * Every sequence is cut into 2 * size chunks, and rank r holds chunks r and 2 * size - 1 - r of each: what a causal
 * attention has to do is then the same on all ranks. A rank's tokens lie chunk after chunk, [2][batch][chunk], so that the
 * queries of one chunk of all sequences are one matrix. The group's collectives run beside the compute stream.
 */
export class ContextParallel {
  readonly size: number;
  readonly rank: number;
  readonly #beside: Beside;

  /** @param group null while only planning: sizes are known, nothing can be communicated */
  constructor(place: { size: number; rank: number }, group: CommGroup | null) {
    this.size = place.size;
    this.rank = place.rank;
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
   * What each of a rank's calls of the attention computes: its chunks' queries, over the keys up to the last of them. One
   * call of whole sequences where they are not cut.
   */
  attention(seq: number): readonly Pick<AttentionSizes, 'seq' | 'keys' | 'keyRows' | 'offset'>[] {
    if (this.size === 1) return [{ seq }];
    const chunk = this.chunk(seq);
    return this.chunksOf(this.rank).map((number) => {
      return { seq: chunk, keys: (number + 1) * chunk, keyRows: seq, offset: number * chunk };
    });
  }

  /** For each of this rank's tokens, its number in a micro-batch of `batch` whole sequences of `seq`. */
  tokensOf(batch: number, seq: number): Int32Array {
    const tokens = new Int32Array((batch * seq) / this.size);
    const chunk = this.chunk(seq);
    let at = 0;
    for (const number of this.chunksOf(this.rank)) {
      for (let sample = 0; sample < batch; sample++) {
        for (let i = 0; i < chunk; i++) tokens[at++] = sample * seq + number * chunk + i;
      }
    }
    return tokens;
  }

  /** This rank's part of what all ranks' parts together are. */
  own(all: Tensor): Tensor {
    return all.rows(this.rank, 1);
  }

  /** @param all [size, ...], of which {@link own} is filled */
  startGather(all: Tensor): Pending {
    return this.#beside.start(all, (group) => group.allGather(this.own(all), all, STREAM.tensor));
  }

  /** The result is {@link own} of the sum over the ranks; the rest of `all` is of no meaning afterwards. */
  startReduceScatter(all: Tensor): Pending {
    const own = this.own(all);
    return this.#beside.start(own, (group) => group.reduceScatter(all, own, STREAM.tensor));
  }
}

import type { CommGroup } from '../../groups/comm/comm-group.js';
import type { Device } from '../../engine/device.js';
import { Graph } from '../../engine/graph.js';
import { KvCache, type GenerationSizes } from './kv-cache.js';
import { TokenRows, type DecoderPart } from './token-rows.js';
import type { Sampling } from './token-sampler.js';

/** Most tokens of prompts that go through the model at once: of one short prompt, and of many or long ones. */
const PREFILL_ROWS = { few: 256, many: 2048 } as const;

/** A token and where it stands. */
export interface PlacedToken {
  readonly id: number;
  readonly slot: number;
  readonly position: number;
}

/** What a slot does in a step: which position of which row its token has. */
export interface ActiveSlot {
  readonly slot: number;
  readonly position: number;
  /** Number of the row, for the noise. */
  readonly row: number;
}

/**
 * Decoding on this rank: the cache, and sets of rows for what goes through the model at once, one row a slot to
 * decode and more to fill the cache with prompts. The token that a slot has sampled stays on the device, as what its
 * next step begins with. Every rank of the model makes the same calls.
 */
export class Decoder {
  readonly sizes: GenerationSizes;
  readonly cache: KvCache;
  readonly #slots: TokenRows;
  /** From few rows to many. */
  readonly #prompts: readonly TokenRows[];
  /** Whether a step is all this rank's: what other ranks take part in is not kept. */
  readonly #alone: boolean;
  /** The last step's sampling, and its calls where they were given a second time. */
  #kept: { readonly sampling: Sampling; readonly graph: Graph | null } | null = null;

  constructor(part: DecoderPart, sizes: GenerationSizes) {
    const { plan, shape, dtype, tp, chunks } = part;
    const layers = chunks.reduce((sum, chunk) => sum + chunk.layers, 0);
    const kvWidth = (shape.numKvHeads / tp.place.size) * shape.headDim;
    this.#alone = tp.place.size === 1 && part.pp.size === 1;
    this.cache = new KvCache(plan, sizes, kvWidth, layers, dtype);
    this.sizes = { slots: sizes.slots, context: this.cache.context };
    const whole = (rows: number): number => Math.ceil(rows / tp.place.size) * tp.place.size;
    this.#slots = new TokenRows(part, this.cache, whole(sizes.slots), true);
    const { context } = this.cache;
    const counts = [Math.min(PREFILL_ROWS.few, context), Math.min(PREFILL_ROWS.many, sizes.slots * context)];
    this.#prompts = [...new Set(counts.map(whole))].map((rows) => new TokenRows(part, this.cache, rows, false));
  }

  /** To be called once the memory is there. */
  prepare(): void {
    this.#forget();
    for (const rows of [this.#slots, ...this.#prompts]) rows.prepare();
  }

  /** Gives back what it took from the device beside the plan's memory. */
  dispose(): void {
    this.#forget();
    for (const rows of [this.#slots, ...this.#prompts]) rows.dispose();
  }

  /** Puts the keys and values of tokens into the cache; those of a slot in order. */
  fill(pipeline: CommGroup, tokens: readonly PlacedToken[]): void {
    for (let at = 0; at < tokens.length;) {
      const left = tokens.length - at;
      const rows = (this.#prompts.find((set) => set.rows >= left) ?? this.#prompts.at(-1)) as TokenRows;
      const part = tokens.slice(at, at + rows.rows);
      at += part.length;
      const of = (value: (token: PlacedToken) => number, none: number): Int32Array =>
        Int32Array.from({ length: rows.rows }, (_, i) => (part[i] === undefined ? none : value(part[i])));
      rows.write({
        ids: of((token) => token.id, 0),
        cells: of((token) => token.slot, -1),
        positions: of((token) => token.position, 0),
        rows: new Int32Array(rows.rows),
      });
      rows.forward(pipeline, null);
    }
  }

  /** The token that the next step of a slot begins with: the last of a prompt. */
  begin(device: Device, slot: number, id: number): void {
    device.write(this.#slots.ids.slice(slot, 1), Int32Array.of(id));
  }

  /**
   * One token more for each of `active`, from the one that its slot has.
   * @returns for each slot the token and its log-probability, without stopping the device; values of slots that are not
   *   active mean nothing
   */
  step(
    pipeline: CommGroup,
    active: readonly ActiveSlot[],
    sampling: Sampling,
  ): Promise<{ tokens: Int32Array; logprobs: Float32Array }> {
    const rows = this.#slots;
    const { sampler } = rows;
    if (sampler === null) throw new Error('the rows of slots sample');
    const { device } = pipeline;
    const [cells, positions, numbers] = [-1, 0, 0].map((none) => new Int32Array(rows.rows).fill(none));
    for (const { slot, position, row } of active) {
      cells![slot] = slot;
      positions![slot] = position;
      numbers![slot] = row;
    }
    rows.write({ ids: null, cells: cells!, positions: positions!, rows: numbers! });
    this.#run(device, sampling, () => {
      rows.forward(pipeline, sampling);
      if (pipeline.size > 1) pipeline.broadcast(sampler.result, pipeline.size - 1);
      device.copy(sampler.tokens, rows.ids);
    });
    return device.fetch(sampler.result).then((bytes) => {
      const values = bytes.slice().buffer;
      const losses = new Float32Array(values, 4 * rows.rows);
      return { tokens: new Int32Array(values, 0, rows.rows), logprobs: losses.map((loss) => -loss) };
    });
  }

  /** Makes the calls of a step: one by one, and from the third one of a sampling on as a whole. */
  #run(device: Device, sampling: Sampling, step: () => void): void {
    if (!this.#alone || !Graph.serves(device)) return step();
    if (this.#kept?.sampling !== sampling) {
      this.#forget();
      this.#kept = { sampling, graph: null };
      return step();
    }
    const graph = this.#kept.graph ?? Graph.capture(device, step);
    this.#kept = { sampling, graph };
    graph.launch();
  }

  #forget(): void {
    this.#kept?.graph?.end();
    this.#kept = null;
  }
}

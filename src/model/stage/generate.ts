import { MbridgeError } from '../../base/errors.js';
import type { Decoder, ActiveSlot, PlacedToken } from '../decode/decoder.js';
import type { Sampling } from '../decode/token-sampler.js';
import type { DistributedModel } from './distributed-model.js';

export interface GenerateOptions extends Partial<Sampling> {
  /** Most tokens to add to a prompt. */
  readonly maxTokens: number;
  /** Tokens that end a row; they are the last of it. */
  readonly stopTokens?: readonly number[];
  /** Number of the first prompt, which decides its noise: rows of several calls with one seed need numbers of their own. */
  readonly firstRow?: number;
  /** Called for each token as it is known, row by row in order. */
  readonly onToken?: (token: { row: number; token: number; logprob: number }) => void;
  /** Called for each row as it ends, with the seconds since it was given a slot. */
  readonly onRow?: (row: GeneratedRow, seconds: number) => void;
}

/** Why a row ended: a stop token, `maxTokens`, or the context. */
export type StopReason = 'stop' | 'length' | 'context';

export interface GeneratedRow {
  /** Number of the prompt. */
  readonly row: number;
  /** What was added to the prompt, a stop token included. */
  readonly tokens: Int32Array;
  /** Of each of them, under the model's distribution before temperature, top-k and top-p. */
  readonly logprobs: Float32Array;
  readonly stop: StopReason;
}

/** A row in progress. */
interface Row {
  readonly row: number;
  readonly slot: number;
  readonly begun: number;
  /** Most tokens that it may get, and why no more. */
  readonly most: number;
  readonly limit: StopReason;
  /** Steps that it may still be given, and the position of the next one's token. */
  left: number;
  position: number;
  readonly tokens: number[];
  readonly logprobs: number[];
  ended: boolean;
}

/**
 * Continues prompts. Rows of any lengths share the slots that the model was planned with; one that ends gives its slot to
 * the next prompt. Replica r takes prompts r, r + replicas, ...; every rank of the model calls it with the same arguments.
 *
 * A token is argmax(logit / temperature + noise), the noise a function of seed, row number, position and token alone: it
 * does not depend on slots, on other rows, or on the number of stages and replicas.
 * @param prompts token ids, at least one each
 * @returns this replica's rows, in order; the same on all of its ranks
 * @throws MbridgeError MB_GENERATE_PROMPT for a prompt that is empty, too long or has other tokens than the vocabulary;
 *   MB_GENERATE_OPTIONS for values out of their ranges
 */
export async function generate(
  model: DistributedModel,
  prompts: readonly ArrayLike<number>[],
  options: GenerateOptions,
): Promise<GeneratedRow[]> {
  const { decoder, spec, shape } = model.stage;
  if (decoder === null)
    throw new Error('the model was not planned to generate: see generation of provideDistributedModel');
  const sampling = samplingOf(options);
  checkPrompts(prompts, decoder.sizes.context, shape.vocabSize);
  const { dp } = spec.place;
  const own = prompts.map((prompt, i) => ({ prompt, row: i + (options.firstRow ?? 0) }));
  model.settleParameters();
  const rows = new RowSchedule(
    model,
    decoder,
    own.filter((_, i) => i % dp.size === dp.rank),
    { ...options, sampling },
  );
  return rows.run();
}

class RowSchedule {
  readonly #model: DistributedModel;
  readonly #decoder: Decoder;
  readonly #waiting: { prompt: ArrayLike<number>; row: number }[];
  readonly #o: GenerateOptions & { readonly sampling: Sampling };
  readonly #stop: ReadonlySet<number>;
  /** By slot. */
  readonly #rows: (Row | null)[];
  readonly #done: GeneratedRow[] = [];

  constructor(
    model: DistributedModel,
    decoder: Decoder,
    prompts: readonly { prompt: ArrayLike<number>; row: number }[],
    options: GenerateOptions & { readonly sampling: Sampling },
  ) {
    this.#model = model;
    this.#decoder = decoder;
    this.#waiting = [...prompts];
    this.#o = options;
    this.#stop = new Set(options.stopTokens);
    this.#rows = new Array<Row | null>(decoder.sizes.slots).fill(null);
  }

  /** The host looks at a step while the device runs the next: a row that stops has been given one step too many. */
  async run(): Promise<GeneratedRow[]> {
    let before: (() => Promise<void>) | null = null;
    for (;;) {
      this.#admit();
      const step = this.#step();
      await before?.();
      before = step;
      if (before === null && this.#waiting.length === 0) break;
    }
    return this.#done.sort((a, b) => a.row - b.row);
  }

  /** Gives free slots to prompts, whose tokens but the last go into the cache. */
  #admit(): void {
    const { context } = this.#decoder.sizes;
    const { device, pipeline } = this.#model;
    const tokens: PlacedToken[] = [];
    const begun: { slot: number; id: number }[] = [];
    this.#rows.forEach((held, slot) => {
      if (held !== null && !held.ended && held.left > 0) return;
      const next = this.#waiting.shift();
      this.#rows[slot] = null;
      if (next === undefined) return;
      const { prompt, row } = next;
      const last = prompt.length - 1;
      for (let position = 0; position < last; position++)
        tokens.push({ id: prompt[position] as number, slot, position });
      begun.push({ slot, id: prompt[last] as number });
      const room = context - last;
      const [most, limit] =
        this.#o.maxTokens <= room ? [this.#o.maxTokens, 'length' as const] : [room, 'context' as const];
      this.#rows[slot] = {
        row,
        begun: performance.now(),
        slot,
        most,
        limit,
        left: most,
        position: last,
        tokens: [],
        logprobs: [],
        ended: false,
      };
    });
    this.#decoder.fill(pipeline, tokens);
    for (const { slot, id } of begun) this.#decoder.begin(device, slot, id);
  }

  /** Enqueues a step of the rows that go on. @returns what takes its tokens; null where none goes on */
  #step(): (() => Promise<void>) | null {
    const rows = this.#rows.filter((row) => row !== null && !row.ended && row.left > 0) as Row[];
    if (rows.length === 0) return null;
    const active: ActiveSlot[] = rows.map(({ slot, position, row }) => ({ slot, position, row }));
    const result = this.#decoder.step(this.#model.pipeline, active, this.#o.sampling);
    result.catch(() => undefined);
    for (const row of rows) {
      row.left--;
      row.position++;
    }
    return async () => {
      const { tokens, logprobs } = await result;
      for (const row of rows) this.#take(row, tokens[row.slot] as number, logprobs[row.slot] as number);
    };
  }

  #take(row: Row, token: number, logprob: number): void {
    if (row.ended) return;
    row.tokens.push(token);
    row.logprobs.push(logprob);
    this.#o.onToken?.({ row: row.row, token, logprob });
    const stopped = this.#stop.has(token);
    if (!stopped && row.tokens.length < row.most) return;
    row.ended = true;
    const done: GeneratedRow = {
      row: row.row,
      tokens: Int32Array.from(row.tokens),
      logprobs: Float32Array.from(row.logprobs),
      stop: stopped ? 'stop' : row.limit,
    };
    this.#done.push(done);
    this.#o.onRow?.(done, (performance.now() - row.begun) / 1000);
  }
}

/** The sampling that options ask for. @throws MbridgeError MB_GENERATE_OPTIONS */
export function samplingOf(o: GenerateOptions): Sampling {
  const { temperature = 1, topK = 0, topP = 1, seed = 0, maxTokens } = o;
  const check = (holds: boolean, what: string, value: number, expected: string): void => {
    if (holds) return;
    throw new MbridgeError('config', 'MB_GENERATE_OPTIONS', `${what} is ${value}`, { hint: `give ${expected}` });
  };
  check(
    temperature >= 0 && temperature < Infinity,
    'the temperature',
    temperature,
    'a number of at least 0; 0 takes the most probable token',
  );
  check(Number.isSafeInteger(topK) && topK >= 0, 'top-k', topK, 'an integer of at least 0; 0 keeps all tokens');
  check(topP > 0 && topP <= 1, 'top-p', topP, 'a number above 0 and up to 1; 1 keeps all tokens');
  check(Number.isSafeInteger(seed) && seed >= 0, 'the seed', seed, 'an integer from 0 to 2^53 - 1');
  check(
    Number.isSafeInteger(maxTokens) && maxTokens >= 1,
    'the number of tokens',
    maxTokens,
    'an integer of at least 1',
  );
  return { temperature, topK, topP, seed };
}

function checkPrompts(prompts: readonly ArrayLike<number>[], context: number, vocabSize: number): void {
  prompts.forEach((prompt, i) => {
    const bad = (found: string, hint: string): never => {
      throw new MbridgeError('config', 'MB_GENERATE_PROMPT', `prompt ${i + 1} ${found}`, { hint });
    };
    if (prompt.length === 0) bad('has no tokens', 'begin it with the token between documents, or with a text');
    if (prompt.length > context) {
      bad(`has ${prompt.length} tokens, more than the context of ${context}`, 'shorten it, or plan a longer context');
    }
    for (const id of Array.from(prompt)) {
      if (Number.isInteger(id) && id >= 0 && id < vocabSize) continue;
      bad(`has the token ${id}, and the vocabulary ends at ${vocabSize - 1}`, "use the model's own tokenizer");
    }
  });
}

import type { WorkerContext } from '../../job/worker/context.js';
import type { MicroBatch } from '../../data/micro-batch.js';
import { tokenSorter } from '../../data/token-order.js';
import { generate } from '../../model/stage/generate.js';
import { withModel } from '../../train/open-model.js';

export interface LogprobsBenchOptions {
  /** Rows at once on each replica. */
  readonly rows: number;
  /** Tokens that are sampled on each replica, at least. */
  readonly tokens: number;
}

/** What one replica found of the tokens that it sampled. */
export interface LogprobsEvent {
  readonly type: 'logprobs';
  readonly rank: number;
  readonly compared: number;
  /** Whose log-probability has other bits than that of the training forward. */
  readonly differing: number;
  /** Mean and largest distance, in nats. */
  readonly mean: number;
  readonly most: number;
  readonly [key: string]: unknown;
}

const SEED = 7;

/** Samples rows up to the model's sequence length, and looks at them again with the training forward. */
export function runWorker(context: WorkerContext): Promise<void> {
  const { rows: slots, tokens } = context.options as LogprobsBenchOptions;
  const { config: cfg, rank } = context;
  const { seq_length: seq, vocab_size: vocab } = cfg.model;
  return withModel(
    context,
    async ({ model, pgCollection: { dp } }) => {
      const { batch, microBatches } = model.stage.spec;
      // Prompts are of an eighth of the sequence at most.
      const longest = Math.max(1, Math.floor(seq / 8));
      const wanted = Math.ceil(tokens / (seq - longest));
      const count = Math.ceil(wanted / (batch * microBatches)) * batch * microBatches;
      const prompts = Array.from({ length: count * dp.size }, (_, row) =>
        Array.from({ length: 1 + ((row * 7) % longest) }, (_, i) => (row * 7919 + i * 104729) % vocab),
      );
      const sampled = await generate(model, prompts, { maxTokens: seq, seed: SEED });
      const sequences = sampled.map(({ row, tokens }) => [...(prompts[row] as number[]), ...tokens]);
      const found: Float32Array[] = [];
      for (let at = 0; at < count; at += batch * microBatches) {
        const batches = Array.from({ length: microBatches }, (_, i) =>
          batchOf(sequences.slice(at + i * batch, at + (i + 1) * batch), seq, vocab),
        );
        found.push(...(model.logprobs(batches) ?? []));
      }
      if (!model.speaks) return;
      let [compared, differing, sum, most] = [0, 0, 0, 0];
      sampled.forEach(({ row, logprobs }, i) => {
        const scored = found[Math.floor(i / batch)] as Float32Array;
        const first = (i % batch) * seq + (prompts[row] as number[]).length - 1;
        logprobs.forEach((logprob, j) => {
          const distance = Math.abs(logprob - (scored[first + j] as number));
          compared++;
          if (distance !== 0) differing++;
          sum += distance;
          most = Math.max(most, distance);
        });
      });
      const event: LogprobsEvent = { type: 'logprobs', rank, compared, differing, mean: sum / compared, most };
      context.emit(event);
    },
    undefined,
    { generation: { slots, context: seq } },
  );
}

/** Sequences of up to seq + 1 tokens, each predicting the token after it. */
function batchOf(sequences: readonly number[][], seq: number, vocab: number): MicroBatch {
  const n = sequences.length * seq;
  const [tokens, targets, positions, order] = [0, 1, 2, 3].map(() => new Int32Array(n)) as [
    Int32Array,
    Int32Array,
    Int32Array,
    Int32Array,
  ];
  sequences.forEach((sequence, i) => {
    tokens.set(sequence.slice(0, seq), i * seq);
    targets.set(sequence.slice(1, seq + 1), i * seq);
    for (let j = 0; j < seq; j++) positions[i * seq + j] = j;
  });
  tokenSorter(n, vocab)(tokens, order);
  return { tokens, targets, positions, order, mask: new Float32Array(n).fill(1) };
}

/**
 * Group relative policy optimisation, on any layout: a model that knows nothing learns to repeat what it is told by being told how
 * well it did. Each update it answers prompts several times over, each answer is rewarded, and what was better than its
 * group becomes more likely. The model samples from the weights that are trained, with its own cache: nothing is copied.
 *
 *   node dist/examples/policy/grpo.js --nproc 2
 *   node dist/examples/policy/grpo.js --nproc 4 --tp-size 2 --pp-size 2
 */
import {
  generate,
  grpoLoss,
  isMain,
  openRun,
  provideDistributedModel,
  qwen3TinyPretrainConfig,
  RowTable,
  runDistributed,
  runMain,
  SampleBatches,
  type MicroBatch,
  type RunWorker,
} from '../../src/index.js';
import { numberOptions, processesToStart } from '../decentralized-pg/options.js';

const VOCABULARY = 64;
const PROMPT = 2;
const SEQ = 16;
const GROUP = 8;

/** The part of an answer's tokens that are the prompt's. */
function rewardOf(tokens: Float32Array): number {
  const right = tokens.filter((token, j) => j >= PROMPT && token === tokens[0]);
  return right.length / (tokens.length - PROMPT);
}

/** How far each reward is from its group's mean, in standard deviations of the group. */
function advantagesOf(rewards: readonly number[], groupOf: (row: number) => number): number[] {
  return rewards.map((reward, row) => {
    const own = rewards.filter((_, other) => groupOf(other) === groupOf(row));
    const mean = own.reduce((sum, x) => sum + x, 0) / own.length;
    const deviation = Math.sqrt(own.reduce((sum, x) => sum + (x - mean) ** 2, 0) / own.length);
    return (reward - mean) / (deviation + 1e-4);
  });
}

export const runWorker: RunWorker = async (context) => {
  const { config } = context;
  const { global_batch_size: rows, micro_batch_size: size, train_iters: updates } = config.train;
  const loss = grpoLoss({ kl: { weight: 0.001 }, entropyBonus: 0.003 });
  const run = await openRun(context, { loss, generation: { slots: rows, context: SEQ + 1 } });
  const { model: policy, pgCollection: pgs, device } = run;
  // The first weights, frozen: what the policy should not stray from.
  const reference = await provideDistributedModel(config, { pgCollection: pgs, device, trainable: false });
  const each = rows / pgs.dp.size;
  const mine = pgs.dp.rank * each;
  const width = 2 * (SEQ + 1);
  const table = new RowTable(pgs.intraDistOpt, { rows, width });
  const memory = new SampleBatches({ count: each / size, microBatchSize: size, seqLength: SEQ, vocabSize: VOCABULARY });
  const lossMask = new Uint8Array(SEQ + 1).fill(1, PROMPT);

  /** Answers of the policy as it is, with what the loss wants to know of them, for this replica. */
  const rollOut = async (step: number): Promise<MicroBatch[]> => {
    const prompts = Array.from({ length: rows }, (_, row) => {
      const first = (step * 7 + Math.floor(row / GROUP) * 5) % VOCABULARY;
      return [first, first];
    });
    const made = await generate(policy, prompts, { maxTokens: SEQ + 1 - PROMPT, seed: step });
    // Tokens of prompt and answer, then the log-probability of each.
    const values = made.flatMap(({ row, tokens, logprobs }) => [...prompts[row]!, ...tokens, 0, 0, ...logprobs]);
    const all = table.share(policy.speaks ? { first: mine, values } : null);
    const tokensOf = (row: number): Float32Array => all.subarray(row * width, row * width + SEQ + 1);
    // A replica has every pgs.dp.size-th prompt, and its rows stand together.
    const promptOf = (row: number): number => (row % each) * pgs.dp.size + Math.floor(row / each);
    const rewards = Array.from({ length: rows }, (_, row) => rewardOf(tokensOf(row)));
    const advantages = advantagesOf(rewards, (row) => Math.floor(promptOf(row) / GROUP));
    if (context.rank === 0) {
      context.emit({ type: 'reward', step, reward: rewards.reduce((sum, reward) => sum + reward, 0) / rows });
    }
    const batches = memory.fill((k) => ({ inputIds: Int32Array.from(tokensOf(mine + k)), lossMask }));
    const scores = reference.logprobs(batches);
    return batches.map((batch, m) => {
      const [advantage, old] = [new Float32Array(size * SEQ), new Float32Array(size * SEQ)];
      for (let i = 0; i < size; i++) {
        const row = mine + m * size + i;
        advantage.fill(advantages[row]!, i * SEQ, (i + 1) * SEQ);
        old.set(all.subarray(row * width + SEQ + 2, (row + 1) * width), i * SEQ);
      }
      const known = { ...batch, advantage, old_logprob: old };
      return scores === null ? known : { ...known, ref_logprob: scores[m] as Float32Array };
    });
  };

  let batches = await rollOut(1);
  const act = async (step: number): Promise<void> => {
    if (step < updates) batches = await rollOut(step + 1);
  };
  await run.train({ data: { next: () => batches }, every: [{ every: 1, act }] });
  table.dispose();
  reference.dispose();
  await run.close();
};

if (isMain(import.meta.url)) {
  process.exitCode = await runMain(() => {
    const o = numberOptions({
      nproc: undefined as number | undefined,
      'tp-size': 1,
      'pp-size': 1,
      'train-iters': 110,
    });
    const config = qwen3TinyPretrainConfig({
      tensor_model_parallel_size: o['tp-size'],
      pipeline_model_parallel_size: o['pp-size'],
      train_iters: o['train-iters'],
      seq_length: SEQ,
      global_batch_size: 16 * GROUP,
      micro_batch_size: 2 * GROUP,
      lr: 1e-3,
    });
    config.model.vocab_size = VOCABULARY;
    config.scheduler.lr_decay_style = 'constant';
    config.dataset = { type: 'mock', seed: 0 };
    const nproc = processesToStart(o.nproc, o['tp-size'] * o['pp-size']);
    return runDistributed({ config, nproc, worker: import.meta.url });
  });
}

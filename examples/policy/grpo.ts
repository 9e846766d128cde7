/**
 * Group relative policy optimisation with three models, each in a layout of its own: a policy that is trained, a sampler that is
 * given its weights before each update, and a reference that it should not stray from. A model that knows nothing learns to
 * repeat what it is told by being told how well it did: prompts are answered several times over, each answer is rewarded, and
 * what was better than its group becomes more likely.
 *
 *   node dist/examples/policy/grpo.js --nproc 1
 *   node dist/examples/policy/grpo.js --nproc 4 --tp-size 2 --pp-size 2 --sampler-tp-size 1 --reference-pp-size 2
 */
import {
  generate,
  grpoLoss,
  isMain,
  openRun,
  qwen3TinyPretrainConfig,
  RowTable,
  runDistributed,
  runMain,
  WeightTransfer,
  type MicroBatch,
  type RunWorker,
  type Sample,
} from '../../src/index.js';
import { numberOptions, processesToStart } from '../decentralized-pg/options.js';
import { modelBeside, type Layout } from './beside.js';
import { ReplicaRows } from './replica-rows.js';

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
function advantagesOf(rewards: readonly number[]): number[] {
  return rewards.map((reward, row) => {
    const first = row - (row % GROUP);
    const own = rewards.slice(first, first + GROUP);
    const mean = own.reduce((sum, x) => sum + x, 0) / GROUP;
    const deviation = Math.sqrt(own.reduce((sum, x) => sum + (x - mean) ** 2, 0) / GROUP);
    return (reward - mean) / (deviation + 1e-4);
  });
}

export const runWorker: RunWorker = async (context) => {
  const layouts = context.options as { sampler: Layout; reference: Layout };
  const { config } = context;
  const { global_batch_size: rows, train_iters: updates } = config.train;
  const run = await openRun(context, { loss: grpoLoss({ kl: { weight: 0.001 }, entropyBonus: 0.001 }) });
  const { model: policy, pgCollection: pgs } = run;
  const { model: sampler } = await modelBeside(run, layouts.sampler, {
    generation: { slots: rows, context: SEQ + 1 },
    onlyGenerates: true,
  });
  const { model: reference, rows: toScore } = await modelBeside(run, layouts.reference, { trainable: false });
  const everyone = pgs.intraDistOpt;
  const refit = await WeightTransfer.create({
    ...{ group: everyone, store: context.store, name: 'policy-to-sampler' },
    ...{ source: policy, target: sampler },
  });
  // Tokens of a row and the log-probability of each, and what the reference says of them.
  const width = 2 * (SEQ + 1);
  const [answers, opinions] = [width, SEQ].map((each) => new RowTable(everyone, { rows, width: each }));
  const lossMask = new Uint8Array(SEQ + 1).fill(1, PROMPT);
  const mine = new ReplicaRows(config, pgs);

  /** Answers of the policy as it is, with what the loss wants to know of them, for this replica. */
  const rollOut = async (step: number): Promise<MicroBatch[]> => {
    refit.run();
    const prompts = Array.from({ length: rows }, (_, row) => {
      const first = (step * 7 + Math.floor(row / GROUP) * 5) % VOCABULARY;
      return [first, first];
    });
    const own = new Float32Array(rows * width);
    for (const { row, tokens, logprobs } of await generate(sampler, prompts, {
      maxTokens: SEQ + 1 - PROMPT,
      seed: step,
    })) {
      own.set([...prompts[row]!, ...tokens, 0, 0, ...logprobs], row * width);
    }
    const all = answers!.share(sampler.speaks ? { first: 0, values: own } : null);
    const tokensOf = (row: number): Float32Array => all.subarray(row * width, row * width + SEQ + 1);
    const rewards = Array.from({ length: rows }, (_, row) => rewardOf(tokensOf(row)));
    const advantages = advantagesOf(rewards);
    const sampleOf = (row: number): Sample => ({ inputIds: Int32Array.from(tokensOf(row)), lossMask });
    const scores = reference.logprobs(toScore.batches(sampleOf))?.flatMap((each) => [...each]) ?? [];
    const opinion = opinions!.share(reference.speaks ? { first: toScore.first, values: scores } : null);
    const batches = mine.batches(sampleOf, {
      advantage: (row) => new Float32Array(SEQ).fill(advantages[row]!),
      old_logprob: (row) => all.subarray(row * width + SEQ + 2, (row + 1) * width),
      ref_logprob: (row) => opinion.subarray(row * SEQ, (row + 1) * SEQ),
    });
    // How far the first ratios are from 1: what sampler and policy say of the same tokens.
    const now = policy.logprobs(batches);
    if (now !== null && policy.speaks && pgs.dp.rank === 0) {
      const off = batches.flatMap(({ mask, old_logprob: old }, m) =>
        [...mask].map((counts, t) => (counts === 0 ? 0 : Math.abs(Math.exp(now[m]![t]! - old![t]!) - 1))),
      );
      const reward = rewards.reduce((sum, x) => sum + x, 0) / rows;
      context.emit({ type: 'reward', step, reward, ratio_off: Math.max(...off) });
    }
    return batches;
  };

  let batches = await rollOut(1);
  const act = async (step: number): Promise<void> => {
    if (step < updates) batches = await rollOut(step + 1);
  };
  await run.train({ data: { next: () => batches }, every: [{ every: 1, act }] });
  for (const each of [answers, opinions, refit, sampler, reference]) each!.dispose();
  await run.close();
};

if (isMain(import.meta.url)) {
  process.exitCode = await runMain(() => {
    const o = numberOptions({
      ...{ nproc: undefined as number | undefined, 'train-iters': 110, 'ranks-per-gpu': 1 },
      ...{ 'tp-size': 1, 'pp-size': 1 },
      ...{ 'sampler-tp-size': 1, 'sampler-pp-size': 1, 'reference-tp-size': 1, 'reference-pp-size': 1 },
    });
    const config = qwen3TinyPretrainConfig({
      ...{ tensor_model_parallel_size: o['tp-size'], pipeline_model_parallel_size: o['pp-size'] },
      ...{ train_iters: o['train-iters'], seq_length: SEQ, global_batch_size: 16 * GROUP, micro_batch_size: 2 * GROUP },
      lr: 1e-3,
    });
    config.model.vocab_size = VOCABULARY;
    config.scheduler.lr_decay_style = 'constant';
    config.dataset = { type: 'mock', seed: 0 };
    config.dist.ranks_per_gpu = o['ranks-per-gpu'];
    const options = {
      sampler: { tp: o['sampler-tp-size'], pp: o['sampler-pp-size'] },
      reference: { tp: o['reference-tp-size'], pp: o['reference-pp-size'] },
    };
    const nproc = processesToStart(o.nproc, o['tp-size'] * o['pp-size']);
    return runDistributed({ config, nproc, worker: import.meta.url, options });
  });
}

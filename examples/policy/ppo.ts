/**
 * Proximal policy optimisation with three models in one job, each in a layout of its own: a policy that generates and is trained, a
 * value model that learns what is still to come, and a frozen reference. Tokens are rewarded for repeating the prompt, more for
 * some prompts than for others. What a token was better than expected by (generalised advantage estimation) is computed here, in
 * plain JavaScript, from numbers that all ranks share.
 *
 *   node dist/examples/policy/ppo.js --nproc 1
 *   node dist/examples/policy/ppo.js --nproc 4 --tp-size 2 --value-pp-size 2
 */
import {
  generate,
  isMain,
  openRun,
  ppoLoss,
  qwen3TinyPretrainConfig,
  RowTable,
  runDistributed,
  runMain,
  setupOptimizer,
  valueLoss,
  type MicroBatch,
  type RunWorker,
  type Sample,
} from '../../src/index.js';
import { numberOptions, processesToStart } from '../decentralized-pg/options.js';
import { advantagesOf, explainedVariance, meanOf, sumsToCome, varianceOf } from './advantages.js';
import { modelBeside, type Layout } from './beside.js';
import { ReplicaRows } from './replica-rows.js';

const VOCABULARY = 32;
/** A token that begins every row, and twice the one to repeat: no position in a row of equal tokens could be told. */
const PROMPT = 3;
const SEQ = 16;
const ANSWER = SEQ + 1 - PROMPT;
/** Updates from the same answers. */
const EPOCHS = 2;
const LAMBDA = 0.9;

/** Of each token of an answer: a part of the row's worth, if it is the prompt's. */
function rewardsOf(tokens: Float32Array): Float32Array {
  const wanted = tokens[PROMPT - 1]!;
  const worth = (0.75 + wanted / VOCABULARY / 2) / ANSWER;
  return tokens.slice(PROMPT).map((token) => (token === wanted ? worth : 0));
}

export const runWorker: RunWorker = async (context) => {
  const layouts = context.options as { value: Layout; reference: Layout };
  const { global_batch_size: rows, train_iters: updates } = context.config.train;
  const run = await openRun(context, {
    loss: ppoLoss({ kl: { weight: 0.001 }, entropyBonus: 0.03 }),
    generation: { slots: rows, context: SEQ + 1 },
  });
  const { model: policy, pgCollection: pgs } = run;
  const value = await modelBeside(run, layouts.value, { head: 'value', loss: valueLoss({ clip: 0.2 }) });
  const { optimizer } = setupOptimizer(value.config, value.model, value);
  const reference = await modelBeside(run, layouts.reference, { trainable: false });
  // Tokens of a row and the log-probability of each; and what a model says of the tokens.
  const width = 2 * (SEQ + 1);
  const [answers, opinions] = [width, SEQ].map((each) => new RowTable(pgs.intraDistOpt, { rows, width: each }));
  const lossMask = new Uint8Array(SEQ + 1).fill(1, PROMPT);
  const mine = new ReplicaRows(run.config, pgs);

  /** Answers of the policy as it is, with what the losses want to know of them, for this rank's replicas of both models. */
  const rollOut = async (step: number): Promise<{ forPolicy: MicroBatch[]; forValue: MicroBatch[] }> => {
    const prompts = Array.from({ length: rows }, (_, row) => {
      const wanted = 1 + ((step * 7 + row * 5) % (VOCABULARY - 1));
      return [0, wanted, wanted];
    });
    const own = new Float32Array(rows * width);
    for (const { row, tokens, logprobs } of await generate(policy, prompts, { maxTokens: ANSWER, seed: step })) {
      own.set([...prompts[row]!, ...tokens], row * width);
      own.set(logprobs, row * width + SEQ + 1 + PROMPT);
    }
    const all = answers!.share(policy.speaks ? { first: 0, values: own } : null);
    const tokensOf = (row: number): Float32Array => all.subarray(row * width, row * width + SEQ + 1);
    const sampleOf = (row: number): Sample => ({ inputIds: Int32Array.from(tokensOf(row)), lossMask });
    const scored = value.model.score(value.rows.batches(sampleOf))?.flatMap((each) => [...each.value]) ?? [];
    const values = opinions!.share(value.model.speaks ? { first: value.rows.first, values: scored } : null);
    const known = reference.model.logprobs(reference.rows.batches(sampleOf))?.flatMap((each) => [...each]) ?? [];
    const opinion = opinions!.share(reference.model.speaks ? { first: reference.rows.first, values: known } : null);

    // Of the tokens of answers alone: token t is predicted, and valued, where token t - 1 is read.
    const judged = Array.from({ length: rows }, (_, row) => {
      const rewards = rewardsOf(tokensOf(row));
      const value = values.slice(row * SEQ + PROMPT - 1, (row + 1) * SEQ);
      return { rewards, value, advantage: advantagesOf(rewards, value, LAMBDA), earned: sumsToCome(rewards, 1) };
    });
    const each = (of: (row: (typeof judged)[number]) => Float32Array): number[] =>
      judged.flatMap((row) => [...of(row)]);
    const advantages = each(({ advantage }) => advantage);
    const [mean, deviation] = [meanOf(advantages), Math.sqrt(varianceOf(advantages))];
    if (context.rank === 0) {
      const reward = meanOf(each(({ rewards }) => rewards.map(Math.sign)));
      const [foreseen, came] = [each(({ value }) => value), each(({ earned }) => earned)];
      const explained = explainedVariance(foreseen, came);
      context.emit({ type: 'rollout', step, reward, explained_variance: explained });
    }
    const field = (values: Float32Array): Float32Array => {
      const whole = new Float32Array(SEQ);
      whole.set(values, PROMPT - 1);
      return whole;
    };
    return {
      forPolicy: mine.batches(sampleOf, {
        advantage: (row) => field(judged[row]!.advantage.map((a) => (a - mean) / (deviation + 1e-6))),
        old_logprob: (row) => all.subarray(row * width + SEQ + 2, (row + 1) * width),
        ref_logprob: (row) => opinion.subarray(row * SEQ, (row + 1) * SEQ),
      }),
      forValue: value.rows.batches(sampleOf, {
        returns: (row) => field(judged[row]!.earned),
        old_value: (row) => values.subarray(row * SEQ, (row + 1) * SEQ),
      }),
    };
  };

  let rollout = await rollOut(1);
  const act = async (step: number): Promise<void> => {
    value.model.forwardBackward(rollout.forValue, { hooks: optimizer.hooks });
    optimizer.step();
    if (step < updates && step % EPOCHS === 0) rollout = await rollOut(step + 1);
  };
  await run.train({ data: { next: () => rollout.forPolicy }, every: [{ every: 1, act }] });
  for (const each of [answers!, opinions!, value.model, reference.model]) each.dispose();
  await run.close();
};

if (isMain(import.meta.url)) {
  process.exitCode = await runMain(() => {
    const o = numberOptions({
      ...{ nproc: undefined as number | undefined, 'train-iters': 100, 'ranks-per-gpu': 1 },
      ...{ 'tp-size': 1, 'pp-size': 1 },
      ...{ 'value-tp-size': 1, 'value-pp-size': 1, 'reference-tp-size': 1, 'reference-pp-size': 1 },
    });
    const config = qwen3TinyPretrainConfig({
      ...{ tensor_model_parallel_size: o['tp-size'], pipeline_model_parallel_size: o['pp-size'] },
      ...{ train_iters: o['train-iters'], seq_length: SEQ, global_batch_size: 128, micro_batch_size: 16, lr: 1e-3 },
    });
    config.model.vocab_size = VOCABULARY;
    config.dataset = { type: 'mock', seed: 0 };
    config.dist.ranks_per_gpu = o['ranks-per-gpu'];
    const options = {
      value: { tp: o['value-tp-size'], pp: o['value-pp-size'] },
      reference: { tp: o['reference-tp-size'], pp: o['reference-pp-size'] },
    };
    const nproc = processesToStart(o.nproc, o['tp-size'] * o['pp-size']);
    return runDistributed({ config, nproc, worker: import.meta.url, options });
  });
}

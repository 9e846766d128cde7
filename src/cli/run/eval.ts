import { basename, resolve as absolute } from 'node:path';
import type { Command } from 'commander';
import type { ConfigSources } from '../../config/resolve.js';
import type { ConfigInput } from '../../config/schema.js';
import { MbridgeError } from '../../base/errors.js';
import { exitOnClosedPipe } from '../shared/closed-pipe.js';
import { refuseNodeOptions } from '../shared/node-options.js';
import { addLayoutOptions, configFlags, overridesOf, parseCount, type RunOptions } from '../shared/run-options.js';

const EXAMPLES = `
Examples:
  mbridge eval my-saves --data valid.txt                     the newest checkpoint of a folder
  mbridge eval my-saves/step-00000100 --data valid.jsonl --nproc 2
  mbridge eval Qwen3-0.6B --data tokens.jsonl model.seq_length=1024   a Hugging Face folder
  mbridge eval my-saves --choices questions.jsonl --nproc 2

Of data the result has loss (nats a token), perplexity, bits per byte of text, counted tokens, and tokens a second; of
choices, the part of the questions whose answer has the highest log-probability, and the highest by bytes.
docs/evaluation.md says more.`;

interface EvalOptions extends RunOptions {
  readonly data?: string;
  readonly choices?: string;
  readonly delimiter?: string;
  readonly datasetType?: string;
  readonly samples?: number;
}

/** `mbridge eval`: measures a model that is there, forward passes alone. */
export function addEval(program: Command): void {
  const command = program
    .command('eval')
    .description('measure a model: loss on data, or accuracy on multiple-choice questions')
    .usage('<checkpoint|Hugging Face folder> (--data | --choices) FILE [section.key=value ...] [options]')
    .argument(
      '<model>',
      'a checkpoint, a folder of checkpoints (then the one that `latest` names), or a Hugging Face folder',
    )
    .argument('[overrides...]', 'section.key=value, such as model.seq_length=1024 or train.micro_batch_size=4')
    .option('--data <file>', 'what to measure the loss on; all of it')
    .option('--choices <file>', 'questions: {"context": ..., "choices": [...], "answer": index} a line')
    .option('--delimiter <text>', 'what stands between a context and its choice (default: nothing)')
    .option('--dataset-type <type>', 'as dataset.type: text, jsonl, indexed or chat; by default what the file is')
    .option('--samples <n>', 'only as many samples of model.seq_length tokens', parseCount);
  refuseNodeOptions(addLayoutOptions(command))
    .addHelpText('after', EXAMPLES)
    .action(async (model: string, texts: string[], options: EvalOptions) => {
      const { data, choices, delimiter } = options;
      if ((data === undefined) === (choices === undefined)) {
        const found = data === undefined ? 'nothing to measure on' : 'both --data and --choices';
        throw new MbridgeError('usage', 'MB_USAGE', found, { hint: 'give one of --data FILE and --choices FILE' });
      }
      const { configOfModel } = await import('../../checkpoint/run/model-config.js');
      const { resolve } = await import('../../config/resolve.js');
      const { evaluate, evaluateChoices } = await import('../../run-evaluation.js');
      const name = basename(absolute(model));
      const { config, origins } = resolve({
        recipe: { name, config: evaluationConfig(await configOfModel(model)) },
        flags: [...(await dataFlags(options)), ...(await configFlags(options))],
        overrides: await overridesOf(texts),
      });
      process.stdout.off('error', exitOnClosedPipe);
      const { nproc, json = false } = options;
      const how = { name: `eval-${name}`, origins, nproc, json };
      const source = { path: choices ?? '', ...(delimiter === undefined ? {} : { delimiter }) };
      process.exitCode = await (choices === undefined ? evaluate(config, how) : evaluateChoices(config, source, how));
    });
}

/** What a forward pass needs beside the model. Nothing is kept for a backward pass, so nothing is computed again. */
function evaluationConfig(model: ConfigInput): ConfigInput {
  return {
    ...model,
    model: { ...model.model, recompute_granularity: 'full' },
    train: { train_iters: 1, micro_batch_size: 1 },
  };
}

async function dataFlags({ data, datasetType, samples }: EvalOptions): Promise<NonNullable<ConfigSources['flags']>> {
  if (data === undefined) return [];
  const { datasetTypeOf } = await import('../../data/prepare/dataset-type.js');
  const type = datasetType ?? datasetTypeOf(data);
  return [
    { path: 'dataset.type', value: type, place: '--dataset-type' },
    { path: 'dataset.path', value: data, place: '--data' },
    { path: 'dataset.shuffle', value: false, place: '--data' },
    ...(samples === undefined ? [] : [{ path: 'validation.eval_samples', value: samples, place: '--samples' }]),
  ];
}

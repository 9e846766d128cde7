import { basename, resolve as absolute } from 'node:path';
import { InvalidArgumentError, type Command } from 'commander';
import { MbridgeError } from '../../base/errors.js';
import type { ConfigInput } from '../../config/schema.js';
import { exitOnClosedPipe } from '../shared/closed-pipe.js';
import { refuseNodeOptions } from '../shared/node-options.js';
import { addLayoutOptions, configFlags, overridesOf, parseCount, type RunOptions } from '../shared/run-options.js';

const EXAMPLES = `
Examples:
  mbridge generate Qwen3-0.6B --prompt "The capital of France is" --max-tokens 20
  mbridge generate Qwen3-0.6B --chat --prompt "Why is the sky blue?" --temperature 0.7 --top-p 0.9
  mbridge generate my-saves --tokenizer Qwen3-0.6B --prompts prompts.jsonl --json --nproc 2

A terminal shows a text as it comes. docs/generation.md says more.`;

interface GenerateFlags extends RunOptions {
  readonly prompt?: string;
  readonly prompts?: string;
  readonly chat?: boolean;
  readonly tokenizer?: string;
}

/** Options that go on as they are. */
const PASSED = ['chat', 'maxTokens', 'temperature', 'topK', 'topP', 'seed', 'slots'] as const;

/** `mbridge generate`: continues texts with a model that is there. */
export function addGenerate(program: Command): void {
  const command = program
    .command('generate')
    .description('continue texts, or answer, with a model')
    .usage('<checkpoint|Hugging Face folder> (--prompt TEXT | --prompts FILE) [section.key=value ...] [options]')
    .argument('<model>', 'a checkpoint, a folder of checkpoints, or a Hugging Face folder')
    .argument('[overrides...]', 'section.key=value')
    .option('--prompt <text>', 'what to continue')
    .option('--prompts <file>', 'a prompt a line; or .jsonl of {"prompt": ...} or {"messages": [...]} lines')
    .option('--chat', "prompts are what a user says: the tokenizer's chat template makes conversations of them")
    .option('--max-tokens <n>', 'most tokens to add to a prompt (default: 256)', parseCount)
    .option('--temperature <t>', '0 takes the most probable token (default: 1)', parseNumber)
    .option('--top-k <k>', 'only the k most probable tokens (default: all)', parseCount)
    .option(
      '--top-p <p>',
      'only the most probable tokens that have this much of the probability (default: 1)',
      parseNumber,
    )
    .option('--seed <n>', 'of the samples (default: 0)', parseSeed)
    .option('--slots <n>', 'rows at once on each replica (default: up to 64)', parseCount)
    .option('--tokenizer <folder>', "Hugging Face folder of the tokenizer, or byte; default: the model's own");
  refuseNodeOptions(addLayoutOptions(command))
    .addHelpText('after', EXAMPLES)
    .action(async (model: string, texts: string[], options: GenerateFlags) => {
      const { prompt, prompts: file, tokenizer, nproc, json = false } = options;
      if ((prompt === undefined) === (file === undefined)) {
        const found = prompt === undefined ? 'nothing to continue' : 'both --prompt and --prompts';
        throw new MbridgeError('usage', 'MB_USAGE', found, { hint: 'give one of --prompt TEXT and --prompts FILE' });
      }
      const { configOfModel } = await import('../../checkpoint/run/model-config.js');
      const { resolve } = await import('../../config/resolve.js');
      const { readPrompts } = await import('../../data/tokenizer/prompts.js');
      const { runGeneration } = await import('../../run-generation.js');
      const name = basename(absolute(model));
      const base: ConfigInput = { ...(await configOfModel(model)), train: { train_iters: 1, micro_batch_size: 1 } };
      const { config, origins } = resolve({
        recipe: { name, config: { ...base, ...(tokenizer === undefined ? {} : { tokenizer: named(tokenizer) }) } },
        flags: await configFlags(options),
        overrides: await overridesOf(texts),
      });
      process.stdout.off('error', exitOnClosedPipe);
      const passed = PASSED.filter((key) => options[key] !== undefined).map((key) => [key, options[key]] as const);
      const request = {
        ...Object.fromEntries(passed),
        prompts: prompt === undefined ? readPrompts(file ?? '') : [prompt],
        tokenizerIsNamed: tokenizer !== undefined,
      };
      const terminal = process.stdout.isTTY;
      const how = { name: `generate-${name}`, origins, nproc, json, terminal };
      process.exitCode = await runGeneration(config, request, how);
    });
}

function named(tokenizer: string): NonNullable<ConfigInput['tokenizer']> {
  return tokenizer === 'byte' ? { type: 'byte' } : { type: 'huggingface', path: tokenizer };
}

function parseNumber(text: string): number {
  const value = Number(text);
  if (text.trim() !== '' && Number.isFinite(value)) return value;
  throw new InvalidArgumentError('Expected a number.');
}

function parseSeed(text: string): number {
  const value = Number(text);
  if (/^\d+$/.test(text) && Number.isSafeInteger(value)) return value;
  throw new InvalidArgumentError('Expected an integer from 0 to 2^53 - 1.');
}

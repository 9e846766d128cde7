import type { Command } from 'commander';
import { exitOnClosedPipe } from '../shared/closed-pipe.js';
import { refuseNodeOptions } from '../shared/node-options.js';
import { addLayoutOptions, configFlags, overridesOf, parseCount, type RunOptions } from '../shared/run-options.js';

const EXAMPLES = `
Examples:
  mbridge finetune Qwen3-0.6B --data chats.jsonl --output tuned          a Hugging Face folder in, one out
  mbridge finetune Qwen3-0.6B --data chats.jsonl --output tuned --epochs 3 --nproc 8 optimizer.lr=2e-5
  mbridge finetune Qwen3-0.6B --data chats.jsonl --output tuned peft.type=lora peft.dim=16   adapters alone are trained
  mbridge finetune my-saves --tokenizer Qwen3-0.6B --data chats.jsonl --output tuned   a checkpoint of ours
  mbridge finetune tuned --data more.jsonl --output tuned-more

A line of the data is {"messages": [{"role": "user", "content": ...}, ...]}, with "tools" if wanted, or
{"prompt": ..., "completion": ...}. The loss is on what the assistant says. docs/finetuning.md says more.`;

interface FinetuneFlags extends RunOptions {
  readonly data: string;
  readonly output?: string;
  readonly epochs?: number;
  readonly tokenizer?: string;
}

/** `mbridge finetune`: trains a model on conversations. */
export function addFinetune(program: Command): void {
  const command = program
    .command('finetune')
    .description('train a model on conversations (supervised fine-tuning)')
    .usage('<Hugging Face folder|checkpoint> --data FILE [--output DIR] [section.key=value ...] [options]')
    .argument('<model>', 'a Hugging Face folder, a checkpoint, or a folder of checkpoints')
    .argument('[overrides...]', 'section.key=value, such as optimizer.lr=2e-5 or train.global_batch_size=32')
    .requiredOption('--data <file>', 'conversations, one a line')
    .option('--output <folder>', 'Hugging Face folder to make; checkpoints stand in <folder>-checkpoints')
    .option('--epochs <n>', 'passes over the data (default: 1)', parseCount)
    .option('--tokenizer <folder>', "Hugging Face folder of the tokenizer; default: the model's own");
  refuseNodeOptions(addLayoutOptions(command))
    .addHelpText('after', EXAMPLES)
    .action(async (model: string, texts: string[], options: FinetuneFlags) => {
      const { finetune } = await import('../../run-finetune.js');
      const { data, output, epochs, tokenizer, nproc, json = false } = options;
      const values = { flags: await configFlags(options), overrides: await overridesOf(texts) };
      process.stdout.off('error', exitOnClosedPipe);
      process.exitCode = await finetune({ model, data, output, epochs, tokenizer, ...values, nproc, json });
    });
}

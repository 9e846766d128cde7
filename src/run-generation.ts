import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { takeEarlySignals } from './base/early-signals.js';
import { MbridgeError } from './base/errors.js';
import { compiledFile } from './base/package-root.js';
import { checkConfig } from './config/check-config.js';
import type { RunConfig } from './config/schema.js';
import { GenerationText, type GenerationStyle } from './data/tokenizer/generation-text.js';
import type { Prompt } from './data/tokenizer/prompts.js';
import type { Tokenizer } from './data/tokenizer.js';
import type { WorkerEvent } from './job/shared/messages.js';
import { detectStarter } from './job/shared/starter.js';
import { samplingOf, type GenerateOptions } from './model/stage/generate.js';
import { start, type RunDistributedOptions } from './run-distributed.js';

export interface GenerationRequest extends Partial<Omit<GenerateOptions, 'stopTokens' | 'onToken' | 'onRow'>> {
  /** Texts, or conversations. */
  readonly prompts: readonly Prompt[];
  /** Whether texts are what a user says, to be answered; by the tokenizer's chat template. */
  readonly chat?: boolean;
  /** Rows at once on each replica; up to 64 by default. */
  readonly slots?: number;
  /** Whether the tokenizer was asked for by name: then also bytes for a model of a larger vocabulary. */
  readonly tokenizerIsNamed?: boolean;
}

const MOST_SLOTS = 64;
const MOST_TOKENS = 256;
/** The largest vocabulary that is one of bytes without being said to be. */
const BYTES = 256;

/**
 * `mbridge generate` as a function: continues texts with the model of `checkpoint.pretrained_checkpoint` on `nproc`
 * processes, and prints them. The launcher makes tokens of texts and texts of tokens; no rank loads a tokenizer.
 * @param options.terminal whether a text is printed as it comes, where there is one prompt
 * @throws MbridgeError as runDistributed; MB_GENERATE_TOKENIZER, MB_GENERATE_PROMPT, MB_GENERATE_OPTIONS
 */
export async function runGeneration(
  config: RunConfig,
  request: GenerationRequest,
  options: Omit<RunDistributedOptions, 'config' | 'worker' | 'options'> & Partial<GenerationStyle> = {},
): Promise<number> {
  takeEarlySignals();
  if (options.nproc === undefined && detectStarter(process.env) !== undefined) {
    throw new MbridgeError('usage', 'MB_USAGE', 'generation starts its own processes', {
      hint: 'call it without torchrun, srun or mpirun, with --nproc N',
    });
  }
  const checked = checkConfig(config);
  const { json = false, terminal = false, ...how } = options;
  const { prompts, chat = false, maxTokens = MOST_TOKENS, firstRow = 0, slots = MOST_SLOTS } = request;
  const sampling = samplingOf({ ...request, maxTokens });
  const tokenizer = await openTokenizer(checked, request.tokenizerIsNamed ?? false);
  const { promptTokens } = await import('./data/tokenizer/prompts.js');
  const { stopTokens } = await import('./data/tokenizer/stop-tokens.js');
  const ids = promptTokens(prompts, tokenizer, { chat });
  const context = contextOf(ids, maxTokens, checked);
  const folders = [checked.checkpoint.pretrained_checkpoint, tokenizer.name].filter((folder) => folder !== null);
  const style = { json, terminal: terminal && !json && prompts.length === 1 };
  const text = new GenerationText(tokenizer, { style, count: prompts.length, firstRow });
  const folder = mkdtempSync(join(tmpdir(), 'mbridge-generate-'));
  const remove = (): void => {
    rmSync(folder, { recursive: true, force: true });
  };
  process.on('exit', remove);
  try {
    const file = join(folder, 'prompts.jsonl');
    writeFileSync(file, ids.map((row) => `${JSON.stringify({ ids: row })}\n`).join(''));
    const given = {
      prompts: file,
      sizes: { slots: Math.min(slots, ids.length), context },
      options: { ...sampling, maxTokens, firstRow, stopTokens: stopTokens(tokenizer, folders.filter(existsSync)) },
      streams: style.terminal,
    };
    const worker = pathToFileURL(compiledFile('train/generate-worker.js')).href;
    const shown = (event: WorkerEvent): WorkerEvent | null => text.shown(event);
    return await start({ ...how, json, config: checked, worker, options: given, shown }, null, oneBatch);
  } finally {
    text.end();
    process.off('exit', remove);
    remove();
  }
}

/** The model has no passes over batches: any sizes that the layout takes. */
function oneBatch(config: RunConfig, ranks: number): RunConfig {
  const { model, train } = config;
  const { tensor_model_parallel_size: tp, pipeline_model_parallel_size: pp, context_parallel_size: cp } = model;
  if (cp > 1) {
    throw new MbridgeError('config', 'MB_GENERATE_CP', `context_parallel_size is ${cp}`, {
      hint: 'a model generates without context parallelism: use --tp-size, or more replicas',
    });
  }
  const replicas = Math.max(1, Math.floor(ranks / (tp * pp)));
  return {
    ...config,
    model: { ...model, sequence_parallel: false },
    train: { ...train, micro_batch_size: 1, global_batch_size: replicas * pp },
  };
}

async function openTokenizer({ tokenizer, model, checkpoint }: RunConfig, named: boolean): Promise<Tokenizer> {
  if (tokenizer.type === 'byte' && !named && model.vocab_size > BYTES) {
    const found = `${checkpoint.pretrained_checkpoint ?? 'the model'} names no tokenizer`;
    throw new MbridgeError('config', 'MB_GENERATE_TOKENIZER', found, {
      hint: 'name the Hugging Face folder of its tokenizer: --tokenizer FOLDER',
    });
  }
  const { openConfigured } = await import('./data/tokenizer/open-tokenizer.js');
  return openConfigured(tokenizer, model.vocab_size);
}

function contextOf(prompts: readonly number[][], maxTokens: number, { model }: RunConfig): number {
  const longest = prompts.reduce((most, { length }) => Math.max(most, length), 0);
  const bound = model.max_position_embeddings;
  if (longest > bound) {
    const at = prompts.findIndex(({ length }) => length === longest);
    const found = `prompt ${at + 1} has ${longest} tokens, more than the model's ${bound} (max_position_embeddings)`;
    throw new MbridgeError('config', 'MB_GENERATE_PROMPT', found, { hint: 'shorten it' });
  }
  return Math.min(longest + maxTokens, bound);
}

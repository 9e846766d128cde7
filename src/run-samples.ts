import { appendFileSync } from 'node:fs';
import { join } from 'node:path';
import { MbridgeError } from './base/errors.js';
import type { RunConfig } from './config/schema.js';
import type { WorkerEvent } from './job/shared/messages.js';
import { eventJson } from './outputs/line.js';
import { checkSamplePrompts, type SamplePrompts } from './train/samples.js';

/** Of a run's folder: what the model wrote, a line a sample. */
const SAMPLES_FILE = 'samples.ndjson';

/** What the launcher does for the samples of a run: tokens of the prompts, and texts of what ranks sampled. */
export interface RunSamples {
  readonly prompts: SamplePrompts;
  /** The event with its text, which is also written to the run's `samples.ndjson`. */
  shown(event: WorkerEvent, runDir: string): WorkerEvent;
}

/**
 * The samples that section `logger` asks for, null for none.
 * @param external whether torchrun or its like starts the ranks, and there is no launcher of ours
 * @throws MbridgeError MB_SAMPLES
 */
export async function prepareSamples(config: RunConfig, external: boolean): Promise<RunSamples | null> {
  const { logger, tokenizer: named, model } = config;
  if (logger.sample_interval === null) return null;
  if (external) {
    throw new MbridgeError(
      'config',
      'MB_SAMPLES',
      'logger.sample_interval is set, and other processes start the ranks',
      {
        hint: 'samples are made into texts by our launcher: start the run with --nproc, or leave sample_interval out',
      },
    );
  }
  const { openConfigured } = await import('./data/tokenizer/open-tokenizer.js');
  const { promptTokens } = await import('./data/tokenizer/prompts.js');
  const { stopTokens } = await import('./data/tokenizer/stop-tokens.js');
  const tokenizer = openConfigured(named, model.vocab_size);
  const ids = promptTokens(logger.sample_prompts, tokenizer, { chat: false });
  checkSamplePrompts(config, ids);
  const folders = named.type === 'huggingface' ? [named.path] : [];
  return {
    prompts: { ids, stopTokens: stopTokens(tokenizer, folders) },
    shown: (event, runDir) => {
      if (event.type !== 'sample' || !Array.isArray(event['tokens'])) return event;
      const { step, prompt, tokens } = event as unknown as { step: number; prompt: number; tokens: number[] };
      const text = tokenizer.decode(tokens, { skipSpecialTokens: true });
      const shown = { type: 'sample', step, prompt: logger.sample_prompts[prompt] ?? '', text, tokens };
      write(join(runDir, SAMPLES_FILE), shown);
      return shown;
    },
  };
}

/** A run does not end because of a sample. */
function write(path: string, sample: WorkerEvent): void {
  try {
    appendFileSync(path, `${eventJson(sample)}\n`);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    process.stderr.write(`warning: ${path} cannot be written: ${reason}\n`);
  }
}

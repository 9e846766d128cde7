import { MbridgeError } from '../base/errors.js';
import type { RunConfig } from '../config/schema.js';
import type { GenerationSizes } from '../model/decode/kv-cache.js';
import { generate } from '../model/stage/generate.js';
import type { Run } from './run.js';
import type { Every } from './train.js';

/** What a rank is told of the samples that section `logger` asks for: the launcher has made tokens of the prompts. */
export interface SamplePrompts {
  readonly ids: readonly (readonly number[])[];
  readonly stopTokens: readonly number[];
}

/** Samples at once, on each replica. */
const MOST_SLOTS = 16;

/** Memory for the samples of a run; undefined where it takes none. */
export function sampleSizes({ logger, model }: RunConfig, replicas: number): GenerationSizes | undefined {
  if (logger.sample_interval === null) return undefined;
  const slots = Math.min(MOST_SLOTS, Math.ceil(logger.sample_prompts.length / replicas));
  return { slots, context: model.seq_length };
}

/** @throws MbridgeError MB_SAMPLES for prompts that are longer than a sample may be */
export function checkSamplePrompts({ logger, model }: RunConfig, prompts: readonly (readonly number[])[]): void {
  const most = model.seq_length - logger.sample_tokens;
  prompts.forEach(({ length }, i) => {
    if (length <= most) return;
    const found = `logger.sample_prompts[${i}] has ${length} tokens, which with sample_tokens ${logger.sample_tokens} is more than model.seq_length ${model.seq_length}`;
    throw new MbridgeError('config', 'MB_SAMPLES', found, {
      hint: 'shorten the prompt, or lower logger.sample_tokens',
    });
  });
}

/** For `every` of {@link Run.train}: samples of the model as it is, each an event `sample` with its tokens. */
export function samplesOf({ model, context, config, pgCollection }: Run, prompts: SamplePrompts | undefined): Every[] {
  const { sample_interval: interval, sample_tokens: maxTokens, sample_temperature: temperature } = config.logger;
  if (interval === null || prompts === undefined) return [];
  const reports = pgCollection.tp.rank === 0 && pgCollection.pp.rank === 0;
  const act = async (step: number): Promise<void> => {
    const options = { maxTokens, temperature, seed: config.rng.seed, stopTokens: prompts.stopTokens };
    for (const { row, tokens } of await generate(model, prompts.ids, options)) {
      if (reports) context.emit({ type: 'sample', step, prompt: row, tokens: [...tokens] });
    }
  };
  return [{ every: interval, apart: true, act }];
}

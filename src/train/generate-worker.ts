import { JsonlFile } from '../data/jsonl-file.js';
import type { WorkerContext } from '../job/worker/context.js';
import { generate, type GenerateOptions } from '../model/stage/generate.js';
import type { GenerationSizes } from '../model/decode/kv-cache.js';
import { withModel } from './open-model.js';

/** What a worker of {@link runWorker} is told beside the configuration. */
export interface GenerationJob {
  /** File of `{"ids": [...]}` lines. */
  readonly prompts: string;
  readonly sizes: GenerationSizes;
  readonly options: Omit<GenerateOptions, 'onToken' | 'onRow'>;
  /** Whether each token is an event, or whole rows alone. */
  readonly streams: boolean;
}

/** What one rank of `mbridge generate` does: tokens in, tokens out. The launcher makes texts of them. */
export function runWorker(context: WorkerContext): Promise<void> {
  const { prompts: path, sizes, options, streams } = context.options as GenerationJob;
  const use = async ({ model, pgCollection: { tp, pp } }: Parameters<Parameters<typeof withModel>[1]>[0]) => {
    const file = JsonlFile.open(path);
    const prompts = Array.from({ length: file.length }, (_, line) => file.object(line)['ids'] as number[]);
    file.close();
    const reports = tp.rank === 0 && pp.rank === 0;
    await generate(model, prompts, {
      ...options,
      onToken: ({ row, token }) => {
        if (streams && reports) context.emit({ type: 'token', row, token });
      },
      onRow: ({ row, tokens, logprobs, stop }, seconds) => {
        if (!reports) return;
        context.emit({ type: 'row', row, tokens: [...tokens], logprobs: [...logprobs], stop, seconds });
      },
    });
  };
  return withModel(context, use, undefined, { generation: sizes, onlyGenerates: true });
}

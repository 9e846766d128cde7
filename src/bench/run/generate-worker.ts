import type { WorkerContext } from '../../job/worker/context.js';
import { resolvePrecision } from '../../config/layout.js';
import { DTYPES } from '../../engine/dtype.js';
import { generate } from '../../model/stage/generate.js';
import { withModel } from '../../train/open-model.js';
import { measureCeilings } from '../device/session.js';
import { DeviceTimer } from '../device/timer.js';

export interface GenerateBenchOptions {
  /** Rows at once on each replica. */
  readonly rows: number;
  readonly promptTokens: number;
  /** Tokens that are made of each row. */
  readonly tokens: number;
}

/** What one replica's first rank measured. */
export interface GenerateEvent {
  readonly type: 'generated';
  readonly rank: number;
  readonly rows: number;
  readonly promptSeconds: number;
  /** Of each step after the prompts; the first and the last are left out. */
  readonly stepMs: readonly number[];
  /** What a step reads on this rank at least: its weights once, and the keys and values of all rows at mid-length. */
  readonly weightBytes: number;
  readonly cacheBytes: number;
  readonly bandwidthGBs: number;
  readonly plannedBytes: number;
  readonly [key: string]: unknown;
}

/** Generates rows of one length with random weights, greedily, without a stop token. */
export function runWorker(context: WorkerContext): Promise<void> {
  const { rows, promptTokens, tokens } = context.options as GenerateBenchOptions;
  const { config: cfg, rank } = context;
  const generation = { slots: rows, context: promptTokens + tokens };
  const act = resolvePrecision(cfg, context.device) === 'fp32' ? 'f32' : 'bf16';
  return withModel(
    context,
    async ({ model, device, pgCollection: { tp, pp, dp } }) => {
      const vocab = cfg.model.vocab_size;
      const prompts = Array.from({ length: rows * dp.size }, (_, row) =>
        Array.from({ length: promptTokens }, (_, i) => (row * 7919 + i * 104729) % vocab),
      );
      const { ops } = model.stage.env;
      const timer = new DeviceTimer(device);
      const { copyGBs } = measureCeilings({ device, ops, timer, act });
      timer.dispose();
      const at: number[] = [];
      let heard = 0;
      const onToken = (): void => {
        if (heard++ % rows === 0) at.push(performance.now()); // a step's tokens are heard of together
      };
      // Kernels are chosen, and libraries loaded, in a short round before.
      await generate(model, prompts, { maxTokens: 2, temperature: 0 });
      const begun = performance.now();
      await generate(model, prompts, { maxTokens: tokens, temperature: 0, onToken });
      if (tp.rank !== 0 || pp.rank !== 0) return;
      const { plan, buffer, decoder } = model.stage;
      const { bytes } = DTYPES[act];
      const weights = buffer.buckets.filter(({ name }) => name !== 'embedding' || cfg.model.tie_word_embeddings);
      const cache = plan.byRegion().cache / (decoder?.sizes.context ?? 1);
      const event: GenerateEvent = {
        type: 'generated',
        rank,
        rows,
        promptSeconds: ((at[0] ?? begun) - begun) / 1000,
        stepMs: at.slice(2, -1).map((time, i) => time - (at[i + 1] ?? time)),
        weightBytes: weights.reduce((sum, { size }) => sum + size * bytes, 0),
        cacheBytes: cache * (promptTokens + tokens / 2),
        bandwidthGBs: copyGBs,
        plannedBytes: plan.totalBytes,
      };
      context.emit(event);
    },
    undefined,
    { generation, onlyGenerates: true },
  );
}

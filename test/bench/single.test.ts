import { expect, test } from 'vitest';
import { qwen3TinyPretrainConfig } from '../../recipes/qwen3.js';
import { measureDevice } from '../../src/bench/device/single.js';

test.each(['gemm', 'bound'] as const)('bench %s says nothing of products of e4m3 by those of bf16', (bench) => {
  const cfg = qwen3TinyPretrainConfig({ mixed_precision: 'fp8_mixed', fp8_first_last_layers_bf16: 1 });
  expect(() => measureDevice(bench, cfg, 'cpu', '')).toThrow(
    expect.objectContaining({
      code: 'MB_CONFIG_NOT_BUILT',
      exitCode: 3,
      message: `bench ${bench} measures no products of e4m3 yet`,
    }) as Error,
  );
});

import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { mbridge } from '../cli/mbridge.js';
import { temporaryFolder } from '../job/launch/processes.js';

const SMALL = ['model.seq_length=64', 'train.train_iters=4', 'train.global_batch_size=4'];

async function pretrain(
  ...args: string[]
): Promise<{ exitCode: number; lines: Record<string, unknown>[]; stderr: string; runDir: string }> {
  const runDir = join(temporaryFolder(), 'run');
  const command = ['pretrain', 'qwen3-tiny', '--device', 'cpu', '--json', '--log-dir', runDir, ...args, ...SMALL];
  const { exitCode, stdout, stderr } = await mbridge(command);
  const lines =
    stdout === ''
      ? []
      : stdout
          .trim()
          .split('\n')
          .map((line) => JSON.parse(line) as Record<string, unknown>);
  return { exitCode: exitCode ?? -1, lines, stderr, runDir };
}

const SAMPLES = [
  'logger.sample_interval=2',
  'logger.sample_prompts=["Call me", "The whale", ""]',
  'logger.sample_tokens=12',
];

const LAYOUTS = [
  { name: 'dp 2', layout: ['--nproc', '2'] },
  { name: 'tp 2 with sequence parallelism', layout: ['--nproc', '2', '--tp-size', '2'] },
  { name: 'pp 2', layout: ['--nproc', '2', '--pp-size', '2'] },
];

test.each(process.env['MBRIDGE_TEST_FULL'] === undefined ? LAYOUTS.slice(1, 2) : LAYOUTS)(
  'samples are written as training goes on, which they do not change by a bit, on $name',
  async ({ layout }) => {
    const [plain, sampled] = [await pretrain(...layout), await pretrain(...layout, ...SAMPLES)];
    expect(sampled.exitCode, sampled.stderr).toBe(0);
    const numbers = (lines: Record<string, unknown>[]): unknown[] =>
      lines.filter(({ type }) => type === 'step').map(({ loss, grad_norm: norm }) => [loss, norm]);
    expect(numbers(sampled.lines)).toHaveLength(4);
    expect(numbers(sampled.lines)).toEqual(numbers(plain.lines));
    const samples = sampled.lines.filter(({ type }) => type === 'sample');
    const places = samples.map(({ step, prompt }) => [step, prompt].join(' ')).sort();
    expect(places).toEqual(['2 ', '2 Call me', '2 The whale', '4 ', '4 Call me', '4 The whale']);
    for (const { text, tokens } of samples) {
      expect(text).toBe(Buffer.from((tokens as number[]).filter((token) => token !== 255)).toString('utf8'));
      expect((tokens as number[]).length).toBeLessThanOrEqual(12);
    }
    const log = readFileSync(join(sampled.runDir, 'rank-1', 'log.ndjson'), 'utf8')
      .trim()
      .split('\n');
    const said = log.map((line) => JSON.parse(line) as Record<string, unknown>);
    const begin = said.find(({ msg }) => msg === 'rank begins');
    expect(begin).toMatchObject({ rank: 1, host: hostname(), pid: expect.any(Number) as number, local_rank: 1 });
    expect(said.find(({ msg }) => msg === 'process groups are made')).toMatchObject({ groups: { tp: [0, 1] } });
    const written = readFileSync(join(sampled.runDir, 'samples.ndjson'), 'utf8').trim().split('\n');
    expect(written.map((line) => JSON.parse(line) as unknown)).toEqual(samples);
  },
);

test('a prompt that leaves no room for a sample is refused before anything starts', async () => {
  const { exitCode, lines } = await pretrain('logger.sample_interval=2', `logger.sample_prompts=["${'a'.repeat(60)}"]`);
  expect(exitCode).toBe(3);
  expect(lines.at(-1)).toMatchObject({ ok: false, error: { code: 'MB_SAMPLES' } });
});

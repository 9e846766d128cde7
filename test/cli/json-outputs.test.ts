import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { StallNotice } from '../../src/job/shared/stall-notice.js';
import { StragglerNotice } from '../../src/job/shared/straggler-notice.js';
import { WaitingNotice } from '../../src/job/shared/waiting-notice.js';
import { checkOutput, readOutputs } from '../helpers/outputs.js';
import { Running } from '../job/launch/processes.js';
import { BIN, mbridge } from './mbridge.js';

const folder = mkdtempSync(join(tmpdir(), 'mbridge-json-'));
afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});
const RUN = join(folder, 'run');
const SAVES = join(RUN, 'checkpoints');
const JOB = join(import.meta.dirname, '../../examples/jobs/grpo-qwen3-4b.yaml');

/** Types that are printed, each held to its schema. */
async function typesOf(args: readonly string[], exitCode = 0): Promise<string[]> {
  const { exitCode: ended, stdout, stderr } = await mbridge(args, {}, folder);
  expect(ended, stderr).toBe(exitCode);
  return readOutputs(stdout).map(({ type }) => type);
}

beforeAll(async () => {
  const small = ['model.seq_length=64', 'train.global_batch_size=4', 'train.train_iters=12', 'optimizer.lr=3'];
  const types = await typesOf(['pretrain', 'qwen3-tiny', '--nproc', '1', '--log-dir', RUN, '--json', ...small]);
  expect([types[0], types.at(-1)]).toEqual(['start', 'result']);
  expect([...new Set(types)].sort()).toEqual(['loss_warning', 'result', 'saved', 'start', 'step']);
}, 60_000);

test('the files of a run hold what is printed', () => {
  const metrics = readOutputs(readFileSync(join(RUN, 'metrics.ndjson'), 'utf8'));
  expect(metrics.filter(({ type }) => type === 'step')).toHaveLength(12);
  expect(metrics.some(({ type }) => type === 'loss_warning')).toBe(true);
  expect(checkOutput(JSON.parse(readFileSync(join(RUN, 'result.json'), 'utf8')))).toMatchObject({ steps: 12 });
});

test.each<[line: string, types: string[]]>([
  ['recipes', ['recipes']],
  ['plan qwen3-tiny --nproc 2', ['plan']],
  [`plan ${JOB} --nproc 8`, ['job_plan']],
  ['grid --nproc 8 --tp-size 2', ['grid']],
  ['show-config qwen3-tiny --explain', ['config']],
  ['config keys optimizer', ['config_keys']],
  ['runs list .', ['run']],
  ['runs compare run run', ['comparison']],
  ['report run', ['result']],
  ['plot run', ['result']],
  ['resume run', ['result']],
  [`checkpoint inspect ${SAVES}`, ['checkpoints']],
  [`checkpoint inspect ${SAVES}/step-00000012 --tensors`, ['checkpoint']],
  [`checkpoint verify ${SAVES}`, ['result']],
  [`checkpoint prune ${SAVES} --keep-last 1 --dry-run`, ['result']],
  [`checkpoint reshard ${SAVES} again --tp-size 2`, ['result']],
  [`checkpoint export ${SAVES} model`, ['result']],
  ['checkpoint import model imported', ['result']],
  ['launch slurm --gpus-per-node 8 -- pretrain qwen3-tiny', ['result']],
  ['launch slurm --gpus-per-node 8 -o job.sh -- pretrain qwen3-tiny', ['result']],
  ['launch k8s --image i --gpus-per-node 8 -o job.yaml -- pretrain qwen3-tiny', ['result']],
])('mbridge %s --json', async (line, types) => {
  const [own = '', ...inner] = line.split(' -- ');
  const args = [...own.split(' '), '--json', ...inner.flatMap((words) => ['--', ...words.split(' ')])];
  expect(await typesOf(args)).toEqual(types);
});

test('mbridge checkpoint inspect tells of the run that a checkpoint lies in', async () => {
  const { stdout } = await mbridge(['checkpoint', 'inspect', `${SAVES}/step-00000012`, '--json']);
  const { loss } = readOutputs(readFileSync(join(RUN, 'metrics.ndjson'), 'utf8')).findLast(
    ({ type }) => type === 'step',
  )!;
  expect(readOutputs(stdout)).toMatchObject([{ run: RUN, loss }]);
  const [{ bytes, optimizer_bytes: moments, parameters } = {} as never] = readOutputs(stdout);
  // Two float32 moments a parameter, beside a float32 weight.
  expect(moments).toBe(8 * Number(parameters));
  expect(Number(bytes)).toBeGreaterThan(12 * Number(parameters));
});

test.each<[args: string[], exitCode: number, code: string]>([
  [['plan', '--json', '--no-such-flag'], 2, 'MB_USAGE'],
  [['checkpoint', 'prune', 'x', '--json'], 2, 'MB_USAGE'],
  [['pretrain', 'qwen3-tiny', '--json', 'a.b=1'], 3, 'MB_CONFIG_UNKNOWN_KEY'],
  [['checkpoint', 'verify', 'nothing', '--json'], 7, 'MB_CHECKPOINT_NONE'],
])('mbridge %j fails with one object', async (args, exitCode, code) => {
  const { exitCode: ended, stdout, stderr } = await mbridge(args, {}, folder);
  expect(ended).toBe(exitCode);
  expect(readOutputs(stdout)).toMatchObject([
    { type: 'result', ok: false, exit_code: exitCode, error: { code, retryable: false } },
  ]);
  expect(stderr).toMatch(new RegExp(`^error ${code}: \\S`));
});

test('mbridge dash --json says where the page is', async () => {
  const dash = new Running([process.execPath, BIN, 'dash', RUN, '--json'], {});
  await dash.says(/\n/);
  expect(readOutputs(dash.stdout)).toMatchObject([{ type: 'dash', url: expect.stringMatching(/^http:/) as string }]);
  dash.child.kill('SIGTERM');
  expect((await dash.ended).code).toBe(0);
});

describe('notices have their schema', () => {
  test('of a stall, and of those that are waited for', async () => {
    const stall = await new Promise<object>((resolve) => {
      const notice = new StallNotice(2, (text, facts) => resolve({ text, ...facts }), 5);
      notice.progress(1, 3);
    });
    expect(checkOutput({ schema: 1, type: 'stall', ...stall })).toMatchObject({ steps: [0, 3], done: [] });
    const waiting = await new Promise<object>((resolve) => {
      new WaitingNotice({ worldSize: 4, missing: () => [1, 3] }, (text, facts) => resolve({ text, ...facts }), 5);
    });
    expect(checkOutput({ schema: 1, type: 'waiting', ...waiting })).toMatchObject({ member: 'rank', missing: [1, 3] });
  });

  test('of stragglers', () => {
    let slow: readonly object[] = [];
    const notice = new StragglerNotice(3, (_, ranks) => (slow = ranks));
    for (let step = 1; step <= 60; step++) {
      for (const rank of [0, 1, 2]) notice.note(rank, step, { ms: rank === 2 ? 40 : 10, stage: 0 });
    }
    expect(checkOutput({ schema: 1, type: 'straggler', ranks: slow })).toMatchObject({ ranks: [{ rank: 2 }] });
  });
});

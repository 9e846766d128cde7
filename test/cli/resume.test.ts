import { cpSync, existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { expectSameTensors, pretrainArgs, stepsOf } from '../checkpoint/runs.js';
import { childrenOf, Running, temporaryFolder, waitFor } from '../job/launch/processes.js';
import { BIN, mbridge } from './mbridge.js';
import { readOutputs } from '../helpers/outputs.js';

const full = process.env['MBRIDGE_TEST_FULL'] === '1';
const KILLS = full ? 20 : 1;
const ITERS = full ? 60 : 24;
const SET = [`train.train_iters=${ITERS}`, 'checkpoint.save_interval=4', `scheduler.lr_decay_iters=${ITERS}`];
const LAST = `run/checkpoints/step-${String(ITERS).padStart(8, '0')}`;

/** A run in a folder of its own: `run` in `folder`. */
function argsOf(folder: string, args: readonly string[] = []): string[] {
  return pretrainArgs({ folder, args: ['--nproc', '2', '--tp', '2', ...SET, ...args] });
}

/** The steps in a run's metrics; of one that was run twice, the last. */
function metrics(folder: string): Map<number, object> {
  const steps = stepsOf(readFileSync(join(folder, 'run/metrics.ndjson'), 'utf8'));
  return new Map(steps.map((step) => [step.step, step]));
}

/** What each attempt of a run has said. */
function attempts({ stdout }: Running): string[] {
  return stdout.split(/^.*"type":"restart".*$/m);
}

// A run that nobody disturbs.
const undisturbed = mkdtempSync(join(tmpdir(), 'mbridge-resume-'));
beforeAll(async () => {
  const { exitCode, stderr } = await mbridge(argsOf(undisturbed));
  expect(exitCode, stderr).toBe(0);
}, 60_000);
afterAll(() => {
  rmSync(undisturbed, { recursive: true });
});

function expectUndisturbed(folder: string): void {
  expect(metrics(folder)).toEqual(metrics(undisturbed));
  expectSameTensors(join(folder, LAST), join(undisturbed, LAST));
}

describe('a run whose rank is killed', () => {
  test('ends by itself, with the bits of the undisturbed one', { timeout: 600_000 }, async () => {
    const folder = temporaryFolder();
    const run = new Running([process.execPath, BIN, ...argsOf(folder, ['--max-restarts', String(KILLS)])]);
    for (let i = 0; i < KILLS; i++) {
      // Each time a little later in the run, so that it comes upon steps, saves and starts alike.
      const at = 6 + Math.floor((i * (ITERS - 12)) / KILLS);
      const victim = await waitFor(
        `update ${at} of attempt ${i}`,
        () => {
          const reached = stepsOf(attempts(run)[i] ?? '').some(({ step }) => step >= at);
          return reached ? childrenOf(run.pid)[i % 2] : undefined;
        },
        60_000,
      );
      process.kill(victim, 'SIGKILL');
      await waitFor(`restart ${i + 1}`, () => attempts(run)[i + 1], 60_000);
    }
    const { code, stdout, stderr } = await run.ended;
    expect(code, stderr).toBe(0);
    expect(stderr).toContain(`\nrestart 1 of ${KILLS} in 1 s, from `);
    const lines = readOutputs(stdout);
    expect(lines.filter(({ type }) => type === 'restart')).toHaveLength(KILLS);
    expect(lines.filter(({ type }) => type === 'result')).toMatchObject([{ ok: true, steps: ITERS }]);
    expectUndisturbed(folder);
  });

  test('fails without --max-restarts, and goes on where it is resumed', async () => {
    const folder = temporaryFolder();
    const run = new Running([process.execPath, BIN, ...argsOf(folder)]);
    await run.says(/"type":"saved"/, 60_000);
    process.kill(childrenOf(run.pid)[1] ?? -1, 'SIGKILL');
    const { code, stderr } = await run.ended;
    expect(code).toBe(5);
    const [, command = ''] = /\n {2}continue with: (.*)\n/.exec(stderr) ?? [];
    expect(command).toMatch(/ resume \S+ --json$/);
    const resumed = await new Running(['sh', '-c', command]).ended;
    expect(resumed.code, resumed.stderr).toBe(0);
    expectUndisturbed(folder);
  });
});

describe('mbridge resume', () => {
  test('goes on with a run that was moved, as it was or as it is told', { timeout: 60_000 }, async () => {
    const root = temporaryFolder();
    const [a, b] = ['a', 'b'].map((name) => join(root, name)) as [string, string];
    for (const copy of [a, b]) cpSync(join(undisturbed, 'run'), copy, { recursive: true });

    const done = await mbridge(['resume', a]);
    expect(done).toMatchObject({ exitCode: 0, stdout: '' });
    const said = `is done: it has ${ITERS} of ${ITERS} updates; to train on: mbridge resume ${a} train.train_iters=${2 * ITERS}`;
    expect(done.stderr).toContain(said);

    const more = `train.train_iters=${ITERS + 2}`;
    const next = await mbridge(['resume', a, '--json', more]);
    expect(next.exitCode, next.stderr).toBe(0);
    expect(stepsOf(next.stdout).map(({ step }) => step)).toEqual([ITERS + 1, ITERS + 2]);
    expect(next.stderr).toContain(`after update ${ITERS}\n  train.train_iters ${ITERS} -> ${ITERS + 2}\n`);
    expect(readdirSync(join(a, 'checkpoints')).filter((name) => name.startsWith('step-'))).toHaveLength(2);

    const other = await mbridge(['resume', b, '--json', '--nproc', '1', '--tp', '1', more, 'checkpoint.save=null']);
    expect(other.exitCode, other.stderr).toBe(0);
    expect(existsSync(join(b, `checkpoints/step-${String(ITERS + 2).padStart(8, '0')}`))).toBe(false);

    const compared = await mbridge(['runs', 'compare', a, b, '--json']);
    const { losses, ...facts } = JSON.parse(compared.stdout) as { losses: { a: number; b: number }[] };
    expect(facts).toMatchObject({
      common_updates: ITERS + 2,
      first_difference: ITERS + 1,
      a: { state: 'done', updates: ITERS + 2, ranks: 2 },
      // What follows from the tensor-parallel size follows the new one.
      config: expect.arrayContaining([
        { key: 'model.tensor_model_parallel_size', a: 2, b: 1 },
        { key: 'model.sequence_parallel', a: true, b: false },
      ]) as unknown,
    });
    for (const pair of losses) expect(Math.abs(pair.a - pair.b)).toBeLessThan(1e-4);
    const text = await mbridge(['runs', 'compare', a, b]);
    expect(text.stdout).toContain(`the first difference is in update ${ITERS + 1}`);
    const listed = await mbridge(['runs', 'list', root]);
    const row = (name: string): string => `${name} +done +${ITERS + 2}/${ITERS + 2} .*`;
    expect(listed.stdout).toMatch(new RegExp(`^run +state +updates +loss .*\n${row('a')}\n${row('b')}$`));
  });

  test.each([
    [['nowhere'], 7, 'MB_NO_RUN: nowhere is no run of mbridge pretrain'],
    [['optimizr.lr=1'], 7, 'MB_NO_RUN: runs/ holds no run'],
    [['nowhere', 'more'], 2, 'MB_USAGE: unexpected argument more'],
  ])('with %j says %d: %s', async (args, code, text) => {
    const { exitCode, stderr } = await mbridge(['resume', ...args], {}, temporaryFolder());
    expect(stderr).toContain(text);
    expect(exitCode).toBe(code);
  });
});

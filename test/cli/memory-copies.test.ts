import {
  closeSync,
  copyFileSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, onTestFinished, test } from 'vitest';
import { expectSameTensors, fixture, pretrainArgs, stepsOf } from '../checkpoint/runs.js';
import { childrenOf, isAlive, Running, waitFor } from '../job/launch/processes.js';
import { readOutputs } from '../helpers/outputs.js';
import { BIN, mbridge } from './mbridge.js';

const full = process.env['MBRIDGE_TEST_FULL'] === '1';
const ITERS = full ? 240 : 32;
const LAST = `run/checkpoints/step-${String(ITERS).padStart(8, '0')}`;
/** Which rank is killed next, and how much later than it could be: any ranks, at any time of an update. */
const VICTIMS = Array.from({ length: 20 }, (_, i) => ({ rank: (i * 6 + 1) % 5, delayMs: (i * 37) % 90 }));

function folderOf(name: string): string {
  const folder = mkdtempSync(join(tmpdir(), `mbridge-${name}-`));
  onTestFinished(() => {
    rmSync(folder, { recursive: true, force: true });
  });
  return folder;
}

function argsOf(folder: string, layout: readonly string[], more: readonly string[] = []): string[] {
  const set = [`train.train_iters=${ITERS}`, `scheduler.lr_decay_iters=${ITERS}`];
  return pretrainArgs({ folder, args: [...layout, ...set, ...more] });
}

const TP2 = ['--nproc', '2', '--tp', '2'];
const undisturbedRuns = new Map<string, string>();
afterAll(() => {
  for (const folder of undisturbedRuns.values()) rmSync(folder, { recursive: true, force: true });
});

/** The folder of a run in a layout that nobody disturbs. */
async function undisturbed(layout: readonly string[]): Promise<string> {
  const key = layout.join(' ');
  const known = undisturbedRuns.get(key);
  if (known !== undefined) return known;
  const folder = mkdtempSync(join(tmpdir(), 'mbridge-undisturbed-'));
  undisturbedRuns.set(key, folder);
  const { exitCode, stderr } = await mbridge(argsOf(folder, layout));
  expect(exitCode, stderr).toBe(0);
  return folder;
}

function start(folder: string, layout: readonly string[], restarts: number, more: readonly string[]): Running {
  return new Running([process.execPath, BIN, ...argsOf(folder, layout, ['--max-restarts', String(restarts), ...more])]);
}

/** The steps in a run's metrics; of one that was run twice, the last. */
function metrics(folder: string): Map<number, object> {
  const steps = stepsOf(readFileSync(join(folder, 'run/metrics.ndjson'), 'utf8'));
  return new Map(steps.map((step) => [step.step, step]));
}

function expectSameRun(folder: string, other: string): void {
  expect(metrics(folder)).toEqual(metrics(other));
  expectSameTensors(join(folder, LAST), join(other, LAST));
}

/** What each attempt of a run has said. */
function attempts({ stdout }: Running): string[] {
  return stdout.split(/^.*"type":"restart".*$/m);
}

interface Restart {
  step: number;
  from: string;
  error: { code: string };
}

function restarts({ stdout }: Running): Restart[] {
  const whole = stdout.slice(0, stdout.lastIndexOf('\n') + 1);
  return readOutputs(whole).filter(({ type }) => type === 'restart') as unknown as Restart[];
}

/** The memory for copies that a process has open, as paths. */
function copiesOf(pid: number): string[] {
  const folder = `/proc/${pid}/fd`;
  try {
    return readdirSync(folder)
      .map((fd) => join(folder, fd))
      .filter((path) => readlinkSync(path).startsWith('/memfd:mbridge-state'));
  } catch {
    return []; // it has ended
  }
}

/** Waits until an attempt has shown two updates: the first of them was copied by then. */
async function shownTwo(run: Running, attempt: number): Promise<number> {
  return waitFor(
    `two updates of attempt ${attempt}`,
    () => {
      const shown = stepsOf(attempts(run)[attempt] ?? '');
      return shown.length < 2 ? undefined : (shown.at(-1)?.step ?? 0);
    },
    60_000,
  );
}

describe('a run with copies in memory, whose ranks are killed', () => {
  test.each([
    ['tp2', TP2, 2],
    ['pp2', ['--nproc', '2', '--pp', '2'], 1],
    ['dp2', ['--nproc', '2'], 1],
  ])(
    'loses no update, and ends with the bits of the undisturbed one: %s',
    { timeout: 600_000 },
    async (_, layout, few) => {
      const victims = full ? VICTIMS : VICTIMS.slice(0, few);
      const expected = await undisturbed(layout);
      const folder = folderOf('killed');
      // No checkpoint is written before the last update.
      const run = start(folder, layout, victims.length, ['checkpoint.non_persistent_save_interval=1']);
      for (const [i, { rank, delayMs }] of victims.entries()) {
        await shownTwo(run, i);
        if (full) await new Promise((resolve) => setTimeout(resolve, delayMs));
        const ranks = childrenOf(run.pid);
        const shown = stepsOf(run.stdout).at(-1)?.step ?? 0;
        process.kill(ranks[rank % ranks.length] ?? -1, 'SIGKILL');
        const restart = await waitFor(`restart ${i + 1}`, () => restarts(run)[i], 60_000);
        expect(restart.from).toBe('memory');
        // Not what a rank reported of an attempt before.
        expect(restart.error.code).toBe('MB_WORKER_KILLED');
        // The update whose numbers were shown last, which may just be copied, or a later one.
        expect(restart.step).toBeGreaterThanOrEqual(shown - 1);
        await waitFor(`the updates after ${restart.step}`, () => stepsOf(attempts(run)[i + 1] ?? '')[0], 60_000);
        expect(stepsOf(attempts(run)[i + 1] ?? '')[0]?.step).toBe(restart.step + 1);
      }
      const held = [run.pid, ...childrenOf(run.pid)].filter((pid) => copiesOf(pid).length > 0);
      expect(held).toContain(run.pid);
      const { code, stderr } = await run.ended;
      expect(code, stderr).toBe(0);
      expect(stderr).toMatch(/\nrestart 1 of \d+ in 1 s, from update \d+ in memory\n/);
      expectSameRun(folder, expected);
      expect(held.filter((pid) => isAlive(pid))).toEqual([]);
    },
  );

  test('goes on from the disk where its copies are damaged, or older', { timeout: 120_000 }, async () => {
    const expected = await undisturbed(TP2);
    const folder = folderOf('damaged');
    const run = start(folder, TP2, 3, [
      'checkpoint.non_persistent_save_interval=1',
      'checkpoint.save_interval=4',
      'checkpoint.keep_last=2',
    ]);
    await run.says(/"type":"saved"/, 60_000);
    const ranks = childrenOf(run.pid);
    for (const pid of ranks) process.kill(pid, 'SIGSTOP');
    for (const path of copiesOf(run.pid).slice(0, 1)) damage(path);
    for (const pid of ranks) process.kill(pid, 'SIGKILL');
    const second = await waitFor('the second restart', () => restarts(run)[1], 60_000);
    const [first] = restarts(run);
    expect(first?.from).toBe('memory');
    expect(second.from).toBe('checkpoint');
    expect(second.step % 4).toBe(0);
    const { code, stderr } = await run.ended;
    expect(code, stderr).toBe(0);
    expect(stderr).toContain('error MB_MEMORY_COPY: ');
    expectSameRun(folder, expected);
  });
});

/** Turns a bit of every page that holds anything but the two headers. */
function damage(path: string): void {
  const fd = openSync(path, 'r+');
  const page = Buffer.alloc(4096);
  for (let at = 2 * 4096; readSync(fd, page, 0, page.length, at) === page.length; at += page.length) {
    if (at > 64 << 20) break; // then come records, and much that is nothing
    if (page.every((byte) => byte === 0)) continue;
    page[5] = (page[5] as number) ^ 4;
    writeSync(fd, page, 0, page.length, at);
  }
  closeSync(fd);
}

test('copies are not blamed for what else a restart finds missing', { timeout: 120_000 }, async () => {
  const folder = folderOf('blamed');
  const data = join(folder, 'data.jsonl');
  copyFileSync(fixture.tokens, data);
  const more = ['checkpoint.non_persistent_save_interval=1', `dataset.path=${data}`];
  const run = start(folder, ['--nproc', '1'], 3, more);
  await shownTwo(run, 0);
  rmSync(data);
  for (const pid of childrenOf(run.pid)) process.kill(pid, 'SIGKILL');
  const { code, stderr } = await run.ended;
  expect(code, stderr).toBe(7);
  expect(stderr).toContain('error MB_DATA_UNREADABLE: ');
  expect(stderr).not.toContain('MB_MEMORY_COPY');
});

/** A run of which a rank was killed, and which says that it begins again. */
async function killed(folder: string): Promise<{ run: Running; step: number }> {
  const run = start(folder, TP2, 3, ['checkpoint.non_persistent_save_interval=1']);
  await shownTwo(run, 0);
  process.kill(childrenOf(run.pid)[0] ?? -1, 'SIGKILL');
  const { step } = await waitFor('the restart', () => restarts(run)[0], 60_000);
  return { run, step };
}

const SIGNALS = [
  { when: 'as the run says that it begins again', ready: (): Promise<unknown> => Promise.resolve() },
  {
    when: 'as its ranks begin',
    ready: (run: Running): Promise<unknown> =>
      waitFor('ranks', () => (childrenOf(run.pid).length === 2 ? true : undefined), 60_000),
  },
];

test.each(SIGNALS)('a signal $when has them save what is only in memory', { timeout: 120_000 }, async ({ ready }) => {
  const expected = await undisturbed(TP2);
  const folder = folderOf('interrupted');
  const { run, step } = await killed(folder);
  await ready(run);
  process.kill(run.pid, 'SIGINT');
  const { code, stdout, stderr } = await run.ended;
  expect(code, stderr).toBe(130);
  expect(stderr).toContain(`SIGINT: only memory has update ${step}: the ranks begin once more to save it`);
  expect(restarts(run)).toHaveLength(1);
  const result = readOutputs(stdout).at(-1) as unknown as { signal: string; saved: string; steps: number };
  expect(result.signal).toBe('SIGINT');
  expect(result.steps).toBeGreaterThanOrEqual(step);
  expect(result.saved).toContain(`step-${String(result.steps).padStart(8, '0')}`);
  const resumed = await mbridge(['resume', join(folder, 'run'), '--json']);
  expect(resumed.exitCode, resumed.stderr).toBe(0);
  expectSameRun(folder, expected);
});

test('a second signal loses what is only in memory, and says so', { timeout: 60_000 }, async () => {
  const { run, step } = await killed(folderOf('insisted'));
  process.kill(run.pid, 'SIGINT');
  await waitFor('the answer', () => (run.stderr.includes('only memory has update') ? true : undefined), 60_000);
  process.kill(run.pid, 'SIGTERM');
  const { code, stdout, stderr } = await run.ended;
  expect(code, stderr).toBe(130);
  expect(readOutputs(stdout).at(-1)).toMatchObject({ type: 'result', signal: 'SIGINT', saved: null });
  expect(stderr).toContain(`update ${step} was in memory alone, and is lost\n`);
});

test('a run that may not begin again says what was only in memory', { timeout: 60_000 }, async () => {
  const run = start(folderOf('given-up'), TP2, 1, ['checkpoint.non_persistent_save_interval=1']);
  for (const attempt of [0, 1]) {
    await shownTwo(run, attempt);
    process.kill(childrenOf(run.pid)[0] ?? -1, 'SIGKILL');
    await waitFor('the failure', () => run.stderr.split('MB_WORKER_KILLED')[attempt + 1], 60_000);
  }
  const { code, stderr } = await run.ended;
  expect(code, stderr).toBe(5);
  expect(stderr).toMatch(/\n {2}update \d+ was in memory alone, and is lost\n/);
});

test('where nobody would go on from copies, none are made', async () => {
  const folder = folderOf('ignored');
  const args = pretrainArgs({
    folder,
    args: ['--nproc', '1', 'train.train_iters=1', 'checkpoint.non_persistent_save_interval=1'],
  });
  const { exitCode, stderr } = await mbridge(args);
  expect(exitCode, stderr).toBe(0);
  const said = 'warning: checkpoint.non_persistent_save_interval is ignored: only --max-restarts goes on from copies\n';
  expect(stderr).toContain(said);
});

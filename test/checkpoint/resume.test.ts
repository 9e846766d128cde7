import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { BIN, mbridge } from '../cli/mbridge.js';
import { Running } from '../job/launch/processes.js';
import { farthest } from '../parity/run-fixture.js';
import {
  expectSameTensors,
  fixture,
  LAYOUT_FLAGS,
  pretrain,
  pretrainArgs,
  pretrainSteps,
  stepsOf,
  temporaryFolder,
} from './runs.js';

const full = process.env['MBRIDGE_TEST_FULL'] === '1';

test('a run that was stopped and resumed prints the same losses and writes the same files; any layout resumes it', async () => {
  const folder = temporaryFolder();
  const [whole, halves] = [join(folder, 'whole'), join(folder, 'halves')];
  const tp2pp2 = LAYOUT_FLAGS['tp2 pp2'];
  const reference = await pretrainSteps({ folder, args: [...tp2pp2, `checkpoint.save=${whole}`] });
  expect(reference.steps.map(({ step }) => step)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);

  const save = `checkpoint.save=${halves}`;
  const first = await pretrainSteps({ folder, args: [...tp2pp2, save, 'train.exit_interval=6'] });
  expect(readFileSync(join(halves, 'latest'), 'utf8')).toBe('step-00000006\n');
  const second = await pretrainSteps({ folder, args: [...tp2pp2, save, `checkpoint.load=${halves}`] });
  expect([...first.steps, ...second.steps]).toEqual(reference.steps);
  expect(second.stderr).not.toMatch(/warning/);
  expectSameTensors(join(whole, 'step-00000012'), join(halves, 'step-00000012'));
  const third = await pretrainSteps({ folder, args: [...tp2pp2, `checkpoint.load=${halves}`] });
  expect(third.steps).toEqual([]);
  expect(third.stderr).toContain('warning: nothing is left to train: the checkpoint has 12 updates');

  const state = JSON.parse(readFileSync(join(halves, 'step-00000006/state.json'), 'utf8')) as Record<string, unknown>;
  expect(state).toMatchObject({ step: 6, consumed_samples: 48, optimizer: { updates: 6 }, rng: { seed: 1234 } });

  const layouts = full ? Object.keys(LAYOUT_FLAGS) : ['dp1', 'dp4', 'tp4', 'pp4', 'pp2 vpp2', 'cp2'];
  for (const name of layouts as (keyof typeof LAYOUT_FLAGS)[]) {
    const resumed = await pretrainSteps({
      folder,
      args: [...LAYOUT_FLAGS[name], `checkpoint.load=${halves}/step-00000006`],
    });
    expect(
      resumed.steps.map(({ step }) => step),
      name,
    ).toEqual([7, 8, 9, 10, 11, 12]);
    expect(farthest(resumed.steps, reference.steps.slice(6), 'loss'), name).toBeLessThan(1e-5);
    expect(farthest(resumed.steps, reference.steps.slice(6), 'grad_norm'), name).toBeLessThan(1e-5);
  }
}, 120_000);

const PAIRS = [
  ['dp4 unsharded', 'pp2 vpp2'],
  ['cp2', 'dp1'],
  ['dp4', 'dp4 unsharded'],
  ['pp2 vpp2', 'tp2 dp2'],
] as const;

test.each(full ? PAIRS : PAIRS.slice(0, 2))('saved on %s, resumed on %s', async (before, after) => {
  const folder = temporaryFolder();
  const save = `checkpoint.save=${join(folder, 'saved')}`;
  const whole = await pretrainSteps({ folder, args: [...LAYOUT_FLAGS[before]] });
  await pretrainSteps({ folder, args: [...LAYOUT_FLAGS[before], save, 'train.exit_interval=3'] });
  for (const layout of [before, after]) {
    const args = [...LAYOUT_FLAGS[layout], `checkpoint.load=${join(folder, 'saved')}`];
    const { steps } = await pretrainSteps({ folder, args });
    if (layout === before) expect(steps).toEqual(whole.steps.slice(3));
    else expect(farthest(steps, whole.steps.slice(3), 'loss')).toBeLessThan(1e-5);
  }
});

test('save_interval, keep_last and keep_every decide what stays; saving in the background or not gives the same files', async () => {
  const folder = temporaryFolder();
  const [a, b] = [join(folder, 'a'), join(folder, 'b')];
  const keep = [
    'checkpoint.save_interval=2',
    'checkpoint.keep_last=2',
    'checkpoint.keep_every=4',
    'train.train_iters=11',
  ];
  const args = [...LAYOUT_FLAGS['tp2 dp2'], ...keep];
  await pretrainSteps({ folder, args: [...args, `checkpoint.save=${a}`] });
  await pretrainSteps({ folder, args: [...args, `checkpoint.save=${b}`, 'checkpoint.async_save=false'] });
  const left = ['latest', 'step-00000004', 'step-00000008', 'step-00000010', 'step-00000011'];
  expect(readdirSync(a).sort()).toEqual(left);
  expect(readdirSync(b).sort()).toEqual(left);
  for (const name of left.slice(1)) expectSameTensors(join(a, name), join(b, name));
});

test('a folder without a checkpoint starts fresh and says so; load wins over pretrained_checkpoint', async () => {
  const folder = temporaryFolder();
  const saved = join(folder, 'saved');
  const args = ['--nproc', '1', 'train.train_iters=2', `checkpoint.load=${saved}`, `checkpoint.save=${saved}`];
  const fresh = await pretrainSteps({ folder, args });
  expect(fresh.stderr).toContain('holds no checkpoint: the run starts fresh');
  expect(fresh.steps.map(({ step }) => step)).toEqual([1, 2]);

  // What a killed save leaves behind, and a folder that was copied in part.
  mkdirSync(join(saved, '.tmp-step-00000099-abc'));
  mkdirSync(join(saved, 'step-00000050'));
  writeFileSync(join(saved, 'step-00000050/index.json'), '{');
  const again = await pretrainSteps({ folder, args });
  expect(again.steps).toEqual([]);
  expect(again.stderr).toMatch(/step-00000050.*(did not end|not committed)/);
  expect(again.stderr).toMatch(/\.tmp-step-00000099-abc/);
  expect(existsSync(join(saved, '.tmp-step-00000099-abc'))).toBe(false);
  expect(readFileSync(join(saved, 'latest'), 'utf8')).toBe('step-00000002\n');

  const direct = await pretrain({ folder, args: ['--nproc', '1', `checkpoint.load=${saved}/step-00000050`] });
  expect(direct.exitCode).toBe(7);
  expect(direct.stderr).toContain('MB_CHECKPOINT_NOT_COMMITTED');

  rmSync(join(saved, 'latest'));
  const pointerless = await pretrainSteps({ folder, args });
  expect(pointerless.stderr).toMatch(/no latest file; taking step-00000002/);
});

test.each(['SIGTERM', 'SIGINT'] as const)('the first %s saves, and the run goes on from there', async (signal) => {
  const folder = temporaryFolder();
  const saved = join(folder, 'saved');
  const iterations = 'train.train_iters=100000';
  const args = [...LAYOUT_FLAGS['tp2 dp2'], `checkpoint.save=${saved}`, `checkpoint.load=${saved}`, iterations];
  const run = new Running([process.execPath, BIN, ...pretrainArgs({ folder, args })]);
  await run.says(/"step":3,/);
  process.kill(run.pid, signal);
  const { code, stdout, stderr } = await run.ended;
  expect(code, stderr).toBe(signal === 'SIGTERM' ? 143 : 130);
  const last = stepsOf(stdout).at(-1)!.step;
  expect(last).toBeGreaterThanOrEqual(3);
  expect(readFileSync(join(saved, 'latest'), 'utf8')).toBe(`step-${String(last).padStart(8, '0')}\n`);
  const { steps } = await pretrainSteps({ folder, args: [...args, `train.exit_interval=${last + 1}`] });
  expect(steps.map(({ step }) => step)).toEqual([last + 1]);
});

test('an imported model is where a run begins', async () => {
  const folder = temporaryFolder();
  const saved = join(folder, 'saved');
  expect((await mbridge(['checkpoint', 'import', fixture.folder, saved])).exitCode).toBe(0);
  const args = [...LAYOUT_FLAGS.dp1, 'train.exit_interval=2'];
  const expected = await pretrainSteps({ folder, args });
  const begun = [
    ...args,
    `checkpoint.load=${saved}`,
    `checkpoint.save=${saved}`,
    'checkpoint.pretrained_checkpoint=null',
  ];
  expect((await pretrainSteps({ folder, args: begun })).steps).toEqual(expected.steps);
  expect(readdirSync(saved).sort()).toEqual(['latest', 'step-00000000', 'step-00000002']);
});

test('exit_duration_in_mins saves and ends in order', async () => {
  const folder = temporaryFolder();
  const saved = join(folder, 'saved');
  const args = [...LAYOUT_FLAGS['tp2 dp2'], `checkpoint.save=${saved}`, 'train.train_iters=100000'];
  const outcome = await pretrain({ folder, args: [...args, 'train.exit_duration_in_mins=0.02'] });
  expect(outcome.exitCode).toBe(0);
  const steps = stepsOf(outcome.stdout);
  const last = steps.at(-1)!.step;
  expect(last).toBeLessThan(100000);
  expect(readdirSync(saved).sort()).toEqual(['latest', `step-${String(last).padStart(8, '0')}`]);
});

test('a save folder that cannot be written is refused before the first update', async () => {
  const folder = temporaryFolder();
  writeFileSync(join(folder, 'file'), '');
  for (const save of [join(folder, 'file/saved'), '/proc/mbridge']) {
    const outcome = await pretrain({ folder, args: ['--nproc', '2', `checkpoint.save=${save}`] });
    expect(outcome.exitCode, outcome.stderr).toBe(7);
    expect(stepsOf(outcome.stdout)).toEqual([]);
    expect(outcome.stderr).toContain(`cannot write ${save}`);
  }
});

import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { parse } from 'yaml';
import { FolderClaim } from '../../src/base/folder-claim.js';
import { BIN, mbridge, type Outcome } from '../cli/mbridge.js';
import { isAlive, childrenOf, Running, waitFor } from '../job/launch/processes.js';
import { loadFixture } from '../helpers/fixture.js';
import { fixture, LAYOUT_FLAGS, pretrain, pretrainArgs, pretrainSteps, stepsOf, temporaryFolder } from './runs.js';

const ENDLESS = ['train.train_iters=1000000', 'checkpoint.save_interval=1', 'checkpoint.keep_last=2'];

/** The machine may have other work. */
const PATIENCE_MS = 60_000;
const TIMEOUT_MS = 240_000;

interface State {
  step: number;
  rng: { seed: number } | null;
  lineage?: string;
}

function stateOf(folder: string): State {
  return JSON.parse(readFileSync(join(folder, 'state.json'), 'utf8')) as State;
}

/** Every file below a folder with its content, to see that nothing was touched. */
function contentOf(folder: string): Record<string, string> {
  const names = readdirSync(folder, { recursive: true, encoding: 'utf8', withFileTypes: true });
  const files = names.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  return Object.fromEntries(files.sort().map((file) => [file, readFileSync(file, 'latin1')]));
}

function expectRefused(outcome: Outcome, code: string): void {
  expect(outcome.exitCode, outcome.stderr).toBe(7);
  expect(outcome.stderr).toContain(code);
  expect(stepsOf(outcome.stdout)).toEqual([]);
}

/** A run of one step in `saved`. */
function oneStep(saved: string, ...args: string[]): Promise<Outcome> {
  const folder = temporaryFolder();
  return pretrain({ folder, args: [...LAYOUT_FLAGS.dp1, 'train.train_iters=1', `checkpoint.save=${saved}`, ...args] });
}

test(
  'what others keep in the folder stays, whatever it is called',
  async () => {
    const saved = join(temporaryFolder(), 'saved');
    const theirs = [
      '.tmp-thesis/chapter1.txt',
      '.tmp-step-00000001/x',
      '.tmp-step-00000001-notes/x',
      '.tmp-step-00000001-abcdefabcdef/mine.txt',
      '.tmp-removed-step-00000001/weights.bin',
      '.tmp-replaced-other/x',
      'step-1/commit.json',
      'archive/step-00000001/commit.json',
    ];
    for (const name of theirs) {
      mkdirSync(join(saved, name, '..'), { recursive: true });
      writeFileSync(join(saved, name), 'precious');
    }
    writeFileSync(join(saved, '.tmp-note'), 'precious');
    const before = contentOf(saved);
    // What is ours goes.
    mkdirSync(join(saved, '.tmp-step-00000007-0123456789ab'));
    writeFileSync(join(saved, '.tmp-step-00000007-0123456789ab/weights-00000.safetensors'), '');
    expect((await oneStep(saved)).exitCode).toBe(0);
    expect((await mbridge(['checkpoint', 'prune', saved, '--keep-last', '1'])).exitCode).toBe(0);
    expect(contentOf(saved)).toMatchObject(before);
    expect(existsSync(join(saved, '.tmp-step-00000007-0123456789ab'))).toBe(false);
    expect(readdirSync(saved).filter((name) => name.startsWith('.mbridge'))).toEqual([]);
  },
  TIMEOUT_MS,
);

test(
  'while a run saves in a folder, nothing else may: not a run, not an import, a reshard, or a prune',
  async () => {
    const folder = temporaryFolder();
    const [saved, other, still] = ['saved', 'other', 'still'].map((name) => join(folder, name)) as [
      string,
      string,
      string,
    ];
    // What the run saves is removed again while it is looked at.
    expect((await oneStep(still)).exitCode).toBe(0);
    const args = [...LAYOUT_FLAGS.dp1, ...ENDLESS];
    const first = new Running([
      process.execPath,
      BIN,
      ...pretrainArgs({ folder, args: [...args, `checkpoint.save=${saved}`] }),
    ]);
    await waitFor('a checkpoint', () => (existsSync(join(saved, 'latest')) ? true : undefined), PATIENCE_MS);

    const second = await oneStep(saved, 'rng.seed=2', `checkpoint.load=${saved}`);
    expectRefused(second, 'MB_FOLDER_CLAIMED');
    const worker = childrenOf(first.pid)[0];
    expect(second.stderr).toMatch(new RegExp(`${saved} is in use by process ${worker} on \\S+, since 20`));
    expect(second.stderr).toContain('give this run a folder of its own (checkpoint.save)');
    for (const command of [
      ['prune', saved, '--keep-last', '1'],
      ['import', fixture.folder, saved],
      ['export', still, saved],
    ]) {
      expectRefused(await mbridge(['checkpoint', ...command]), 'MB_FOLDER_CLAIMED');
    }
    // Reading is free.
    expect((await mbridge(['checkpoint', 'prune', saved, '--keep-last', '1', '--dry-run'])).exitCode).toBe(0);

    // The same for the folder of logs.
    const logs = pretrainArgs({ folder, args: [...args, `checkpoint.save=${other}`, 'rng.seed=3'] });
    const record = readFileSync(join(folder, 'run/run.json'), 'utf8');
    const third = await mbridge(logs);
    expectRefused(third, 'MB_FOLDER_CLAIMED');
    expect(third.stderr).toMatch(new RegExp(`/run is in use by process ${first.pid} on `));
    expect(third.stderr).toContain('--log-dir');
    expect(readFileSync(join(folder, 'run/run.json'), 'utf8')).toBe(record);

    // A kill of all leaves both claims; the next run takes them over and goes on.
    const workers = childrenOf(first.pid);
    for (const pid of [first.pid, ...workers]) process.kill(pid, 'SIGKILL');
    await first.ended;
    await waitFor('the workers to end', () => (workers.some(isAlive) ? undefined : true));
    expect(existsSync(join(saved, '.mbridge-save.claim')) && existsSync(join(folder, 'run/.mbridge-run.claim'))).toBe(
      true,
    );
    const { step, lineage } = stateOf(join(saved, readFileSync(join(saved, 'latest'), 'utf8').trim()));
    const again = [...args, `checkpoint.save=${saved}`, `checkpoint.load=${saved}`, `train.exit_interval=${step + 2}`];
    const { steps } = await pretrainSteps({ folder, args: again });
    expect(steps[0]?.step).toBe(step + 1);
    const latest = readFileSync(join(saved, 'latest'), 'utf8').trim();
    expect(stateOf(join(saved, latest)).lineage).toBe(lineage);
    for (const place of [saved, join(folder, 'run')]) {
      expect(readdirSync(place).filter((name) => name.startsWith('.mbridge'))).toEqual([]);
    }
  },
  TIMEOUT_MS,
);

test(
  'a run that fails, or whose workers are killed, gives its folders back',
  async () => {
    const folder = temporaryFolder();
    const saved = join(folder, 'saved');
    const run = new Running([
      process.execPath,
      BIN,
      ...pretrainArgs({ folder, args: [...LAYOUT_FLAGS['tp2 dp2'], ...ENDLESS, `checkpoint.save=${saved}`] }),
    ]);
    await waitFor('a checkpoint', () => (existsSync(join(saved, 'latest')) ? true : undefined), PATIENCE_MS);
    process.kill(childrenOf(run.pid)[0] as number, 'SIGKILL');
    expect((await run.ended).code).toBe(5);
    for (const place of [saved, join(folder, 'run')]) {
      expect(readdirSync(place).filter((name) => name.startsWith('.mbridge'))).toEqual([]);
    }
  },
  TIMEOUT_MS,
);

test(
  'a run neither replaces nor removes what another run has saved, unless it is told to',
  async () => {
    const folder = temporaryFolder();
    const saved = join(folder, 'saved');
    const args = [...LAYOUT_FLAGS.dp1, `checkpoint.save=${saved}`, 'checkpoint.save_interval=1', 'train.train_iters=2'];
    await pretrainSteps({ folder, args });
    const before = contentOf(saved);

    // Begun anew, from elsewhere, and after them: whichever would come upon them is refused, before its first update.
    const refused = await pretrain({ folder, args: [...args, 'rng.seed=2'] });
    expectRefused(refused, 'MB_CHECKPOINT_FOREIGN');
    expect(refused.stderr).toContain('step-00000001, step-00000002');
    expect(refused.stderr).toContain(`checkpoint.load=${saved}`);
    const copy = join(folder, 'copy');
    mkdirSync(copy);
    expect((await mbridge(['checkpoint', 'reshard', join(saved, 'step-00000001'), copy])).exitCode).toBe(0);
    expectRefused(await pretrain({ folder, args: [...args, `checkpoint.load=${copy}`] }), 'MB_CHECKPOINT_FOREIGN');
    expect(contentOf(saved)).toEqual(before);

    // Going on in the folder, from the last or from an earlier one, is the same run.
    const on = [...args, 'train.train_iters=3', `checkpoint.load=${saved}/step-00000001`, 'rng.seed=2'];
    await pretrainSteps({ folder, args: [...on, 'optimizer.lr=0.5'] });
    const lineages = [1, 2, 3].map((step) => stateOf(join(saved, `step-0000000${step}`)).lineage);
    expect(new Set(lineages).size).toBe(1);
    expect(lineages[0]).toMatch(/^[0-9a-f]{32}$/);

    // Another run's earlier ones stay under keep_last, its own go.
    const beside = join(folder, 'beside');
    await pretrainSteps({ folder, args: [...args, `checkpoint.save=${beside}`, 'train.train_iters=1'] });
    renameSync(join(saved, 'step-00000003'), join(copy, 'step-00000003'));
    const far = [...args, `checkpoint.save=${beside}`, `checkpoint.load=${copy}/step-00000003`, 'train.train_iters=6'];
    await pretrainSteps({ folder, args: [...far, 'checkpoint.keep_last=1'] });
    expect(readdirSync(beside).sort()).toEqual(['latest', 'step-00000001', 'step-00000006']);

    const forced = [...args, 'rng.seed=2', 'checkpoint.overwrite=true', 'checkpoint.keep_last=1'];
    await pretrainSteps({ folder, args: forced });
    expect(readdirSync(saved).sort()).toEqual(['latest', 'step-00000002']);
    expect(stateOf(join(saved, 'step-00000002')).rng?.seed).toBe(2);
  },
  TIMEOUT_MS,
);

test(
  'checkpoints of before lineages were recorded are gone on from, and are the run’s own',
  async () => {
    const folder = temporaryFolder();
    const saved = join(folder, 'saved');
    const args = [
      ...LAYOUT_FLAGS.dp1,
      `checkpoint.save=${saved}`,
      'checkpoint.save_interval=1',
      'checkpoint.keep_last=3',
    ];
    await pretrainSteps({ folder, args: [...args, 'train.train_iters=2'] });
    const { readRecords } = await import('../../src/checkpoint/format/checkpoint-files.js');
    const { sealFolder } = await import('../../src/checkpoint/format/commit.js');
    for (const name of ['step-00000001', 'step-00000002']) {
      const path = join(saved, name);
      const { index, state, commit } = await readRecords(path);
      const old = { ...state };
      delete (old as { lineage?: string }).lineage;
      delete (old as { data?: unknown }).data;
      const files = Object.fromEntries(Object.entries(commit.files).filter(([file]) => file.endsWith('.safetensors')));
      for (const file of ['index.json', 'state.json', 'commit.json']) rmSync(join(path, file));
      await sealFolder(path, [{ files, tensors: index.tensors }], old);
    }
    expectRefused(await pretrain({ folder, args: [...args, 'train.train_iters=2'] }), 'MB_CHECKPOINT_FOREIGN');
    const on = [...args, 'train.train_iters=5', `checkpoint.load=${saved}`];
    expect((await pretrainSteps({ folder, args: on })).steps.map(({ step }) => step)).toEqual([3, 4, 5]);
    expect(readdirSync(saved).sort()).toEqual(['latest', 'step-00000003', 'step-00000004', 'step-00000005']);
  },
  TIMEOUT_MS,
);

test(
  'another model’s checkpoints, a folder in the way, and a latest that is not ours are refused at the start',
  async () => {
    const folder = temporaryFolder();
    const saved = join(folder, 'saved');
    const other = loadFixture('qwen3-untied');
    expect((await mbridge(['checkpoint', 'import', other.folder, saved])).exitCode).toBe(0);
    const sizes = await oneStep(saved, 'model.num_hidden_layers=2', 'checkpoint.pretrained_checkpoint=null');
    expectRefused(sizes, 'MB_CHECKPOINT_FOREIGN');
    expect(sizes.stderr).toMatch(/step-00000000: is of another model \(\w+ \S+, this run has \S+\)/);

    const cases: Record<string, (root: string) => void> = {
      'step-00000001': (root) => {
        mkdirSync(join(root, 'step-00000001'));
        writeFileSync(join(root, 'step-00000001/weights-00000.safetensors'), 'half a copy');
      },
      latest: (root) => writeFileSync(join(root, 'latest'), 'my notes\n'),
      'latest ': (root) => mkdirSync(join(root, 'latest')),
      'latest  ': (root) => symlinkSync('elsewhere', join(root, 'latest')),
    };
    for (const [name, make] of Object.entries(cases)) {
      const root = temporaryFolder();
      make(root);
      const before = contentOf(root);
      const outcome = await oneStep(root);
      expectRefused(outcome, 'MB_CHECKPOINT_FOREIGN');
      expect(outcome.stderr).toContain(join(root, name.trim()));
      expect(contentOf(root)).toEqual(before);
    }
  },
  TIMEOUT_MS,
);

test(
  'import and reshard leave a folder with other checkpoints as it is',
  async () => {
    const folder = temporaryFolder();
    const [saved, imported] = [join(folder, 'saved'), join(folder, 'imported')];
    const args = [...LAYOUT_FLAGS.dp1, `checkpoint.save=${saved}`, 'checkpoint.save_interval=1', 'train.train_iters=2'];
    await pretrainSteps({ folder, args });
    expect((await mbridge(['checkpoint', 'import', fixture.folder, imported])).exitCode).toBe(0);
    for (const root of [saved, imported]) {
      const before = contentOf(root);
      const again = await mbridge(['checkpoint', 'import', fixture.folder, root]);
      expectRefused(again, 'MB_CHECKPOINT_FOREIGN');
      expect(again.stderr).toMatch(/holds other checkpoints: step-0000000/);
      expect(contentOf(root)).toEqual(before);
    }
    expectRefused(await mbridge(['checkpoint', 'reshard', saved, imported]), 'MB_CHECKPOINT_FOREIGN');
    // One run's checkpoints may be resharded one by one; the newest stays the latest.
    const target = join(folder, 'target');
    for (const name of ['step-00000002', 'step-00000001']) {
      expect((await mbridge(['checkpoint', 'reshard', join(saved, name), target, '--dp-size', '2'])).exitCode).toBe(0);
    }
    expect(readFileSync(join(target, 'latest'), 'utf8')).toBe('step-00000002\n');
  },
  TIMEOUT_MS,
);

test.each(['import', 'export'])(
  'a signal in the middle of an %s leaves nothing behind',
  async (what) => {
    const folder = temporaryFolder();
    const claim = new FolderClaim(folder, 'run'); // any process's: only the kind of the command's own counts
    const source = join(folder, 'source');
    if (what === 'export') await mbridge(['checkpoint', 'import', fixture.folder, source]);
    const from = what === 'export' ? source : fixture.folder;
    const before = readdirSync(folder).sort();
    const target = join(folder, 'target');
    const run = new Running([process.execPath, BIN, 'checkpoint', what, from, target]);
    await waitFor(
      'it to begin',
      // A quick one may be over before it is seen.
      () => (existsSync(join(target, '.mbridge-save.claim')) || run.child.exitCode !== null ? true : undefined),
      PATIENCE_MS,
    );
    run.child.kill('SIGTERM');
    const { code } = await run.ended;
    expect([0, 143]).toContain(code);
    const left = readdirSync(folder).sort();
    expect(left.filter((name) => name !== 'target')).toEqual(before);
    if (left.includes('target')) expect(readdirSync(target).filter((name) => name.startsWith('.'))).toEqual([]);
    claim.release();
  },
  TIMEOUT_MS,
);

test(
  'workers train with the configuration of their launcher, whatever run.json says',
  async () => {
    const folder = temporaryFolder();
    const args = pretrainArgs({ folder, args: [...LAYOUT_FLAGS['tp2 pp2'], 'train.train_iters=3'] });
    const run = new Running([process.execPath, BIN, ...args]);
    const record = join(folder, 'run/run.json');
    await waitFor('the record', () => (existsSync(record) ? true : undefined), PATIENCE_MS);
    writeFileSync(record, '{"config":{}}');
    const { code, stdout, stderr } = await run.ended;
    expect(code, stderr).toBe(0);
    expect(stepsOf(stdout)).toHaveLength(3);
    expect((parse(readFileSync(join(folder, 'run/resolved.yaml'), 'utf8')) as { train: unknown }).train).toMatchObject({
      train_iters: 3,
    });
  },
  TIMEOUT_MS,
);

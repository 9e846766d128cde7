import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { afterAll, expect, test } from 'vitest';
import { findRecipe } from '../../recipes/index.js';
import { compiledFile } from '../../src/base/package-root.js';
import { parseOverrides } from '../../src/config/overrides.js';
import { resolveConfig } from '../../src/config/resolve.js';

const folder = mkdtempSync(join(tmpdir(), 'mbridge-own-training-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

interface Ended {
  readonly exitCode?: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program that trains qwen3-tiny for 4 updates with what `brings` says (properties of the second argument). */
async function program(
  brings: string,
  options: { before?: string; env?: NodeJS.ProcessEnv; node?: string[] } = {},
): Promise<Ended> {
  const { before = '', env = {}, node = [] } = options;
  const file = join(folder, 'program.mjs');
  writeFileSync(
    file,
    `import { pretrain, qwen3TinyPretrainConfig, runMain } from ${JSON.stringify(compiledFile('index.js'))};
     const cfg = qwen3TinyPretrainConfig({ train_iters: 4, seq_length: 16, global_batch_size: 2 });
     const nproc = process.env.WORLD_SIZE === undefined ? 2 : undefined;
     ${before}
     process.exitCode = await runMain(() => pretrain(cfg, { nproc, json: true, ${brings} }));
     console.log('after the run');`,
  );
  return await execa(process.execPath, [...node, file], { cwd: folder, reject: false, env });
}

function events({ stdout }: Ended, type: string): Record<string, unknown>[] {
  const lines = stdout.split('\n').filter((line) => line.startsWith('{'));
  return lines.map((line) => JSON.parse(line) as Record<string, unknown>).filter((event) => event['type'] === type);
}

test('a program brings a learning rate and callbacks, which all of its ranks follow', async () => {
  const told =
    "const tell = (what) => (value, run) => (run ?? value).context.emit({ type: 'told', what, rank: (run ?? value).context.rank });";
  const ended = await program(
    `lr: (update) => update / 1024,
     callbacks: {
       onTrainStart: tell('start'), onTrainEnd: tell('end'),
       every: [{ every: 3, act: tell('every') }],
       onStep: ({ step }, run) => { if (step === 2) run.requestStop(); tell('step')(null, run); },
     }`,
    { before: told },
  );
  expect(ended.exitCode, ended.stderr).toBe(0);
  // One update late, and up to two more.
  expect(events(ended, 'step').map(({ lr }) => lr)).toEqual([1, 2, 3, 4].map((n) => n / 1024));
  const said = events(ended, 'told').map(({ what, rank }) => `${what} ${rank}`);
  expect(said.sort()).toEqual(
    ['start 0', 'start 1', 'every 0', 'every 1', 'step 0', 'step 0', 'step 0', 'step 0', 'end 0', 'end 1'].sort(),
  );
  // The ranks are the same program, and leave it where they have trained.
  expect(ended.stdout.match(/after the run/g)).toHaveLength(1);
});

test('a restart after the last update trains nothing, and asks for no more updates', async () => {
  const ended = await program(
    `maxRestarts: 1, callbacks: {
       onTrainEnd: (_, { context }) => { if (!context.again) process.kill(process.pid, 'SIGKILL'); },
     }`,
    { before: "cfg.checkpoint.save = 'saved-before-the-end';" },
  );
  expect(ended.exitCode, ended.stderr).toBe(0);
  expect(events(ended, 'restart')).toMatchObject([{ from: 'checkpoint', step: 4 }]);
  expect(ended.stderr).not.toContain('nothing is left to train');
  expect(ended.stderr).toContain('all 4 updates are trained');
});

test.each<[string, string, number, RegExp]>([
  [
    'a callback that throws is a fault of the program, at its place',
    'callbacks: { onStep: () => { throw new TypeError("no such column"); } }',
    1,
    /error MB_PROGRAM: rank 0: no such column at step \d\n\s+TypeError: no such column\n\s+at .*program\.mjs:5/,
  ],
  [
    'so is one that rejects',
    'callbacks: { onTrainEnd: async () => { throw new Error("no room"); } }',
    1,
    /error MB_PROGRAM: .*no room /,
  ],
  [
    'a learning rate that is no number',
    'lr: (update) => 1 / (3 - update) ** 2',
    3,
    /error MB_LEARNING_RATE: .*learning rate of update 3 is Infinity/,
  ],
  [
    'data that cannot be made',
    'data: () => { throw new Error("no such table"); }',
    1,
    /error MB_PROGRAM: .*no such table/,
  ],
])('%s', async (_, brings, exitCode, message) => {
  const ended = await program(brings);
  expect(ended.stderr).toMatch(message);
  expect(ended.exitCode).toBe(exitCode);
});

test('a program that asks its ranks for another run than it asked for is told', async () => {
  const ended = await program('lr: () => 1e-3', { before: 'cfg.rng.seed = process.pid;' });
  expect(ended.stderr).toMatch(
    /asks for another run on this rank.*\n\s+every rank runs the program up to its one pretrain/,
  );
  expect(ended.exitCode).toBe(5);
});

test('what loads the modules of a program loads them on its ranks too', async () => {
  const node = ['--import', 'data:text/javascript,globalThis.loaded=7'];
  const ended = await program('lr: () => globalThis.loaded / 1024', { node });
  expect(events(ended, 'step')[0]?.['lr'], ended.stderr).toBe(7 / 1024);
});

test('started by another launcher, each process is a rank of the program', async () => {
  const port = String(20_000 + (process.pid % 10_000));
  const env = (rank: string) => ({
    ...{ RANK: rank, LOCAL_RANK: rank, WORLD_SIZE: '2', LOCAL_WORLD_SIZE: '2' },
    MASTER_PORT: port,
  });
  const [first, second] = await Promise.all(['0', '1'].map((rank) => program('lr: () => 1 / 512', { env: env(rank) })));
  expect([first?.exitCode, second?.exitCode], first?.stderr).toEqual([0, 0]);
  expect(events(first as Ended, 'step').map(({ lr }) => lr)).toEqual([0, 0, 0, 0].map(() => 1 / 512));
});

test('a program takes section.key=value texts as the command line does, and names those that are none', () => {
  const { config } = findRecipe('qwen3-tiny');
  const recipe = { name: 'qwen3-tiny', config };
  const overrides = parseOverrides(['optimizer.lr=1e-2', 'dataset.path=*.txt']);
  expect(resolveConfig({ recipe, overrides })).toMatchObject({ optimizer: { lr: 1e-2 }, dataset: { path: '*.txt' } });
  expect(() => parseOverrides(['optimizer.lr=1', 'qwen3-4b', '=1'])).toThrow(
    /qwen3-4b: expected section\.key=value[^]*=1: expected/,
  );
});

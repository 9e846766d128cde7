import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { expect, onTestFinished, test } from 'vitest';
import { MbridgeError } from '../../src/base/errors.js';
import { FolderClaim, removeDeadClaim } from '../../src/base/folder-claim.js';
import { identifyThisProcess, type ProcessIdentity } from '../../src/base/process-identity.js';

const ROUNDS = process.env['MBRIDGE_TEST_FULL'] === '1' ? 40 : 1;
const MODULE = join(import.meta.dirname, '../../dist/src/base/folder-claim.js');
const FILE = '.mbridge-save.claim';

function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'mbridge-claim-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** A claim as another process would have left it: by default one of this host that has ended. */
async function left(
  folder: string,
  change: Partial<ProcessIdentity> = {},
  name = FILE,
  id = 'a'.repeat(16),
): Promise<void> {
  const dead = { ...identifyThisProcess(), pid: await endedPid(), pid_start: '1' };
  const record = { ...dead, id, since: '2026-01-02T03:04:05.000Z', command: 'mbridge pretrain theirs.yaml', ...change };
  writeFileSync(join(folder, name), JSON.stringify(record));
}

async function endedPid(): Promise<number> {
  const child = execa('true');
  const pid = child.pid as number;
  await child;
  return pid;
}

function take(folder: string): FolderClaim {
  const claim = new FolderClaim(folder, 'save', 'name another folder');
  onTestFinished(() => {
    claim.release();
  });
  return claim;
}

function refusal(folder: string): MbridgeError {
  try {
    take(folder);
  } catch (error) {
    if (error instanceof MbridgeError) return error;
    throw error;
  }
  throw new Error('the folder was taken');
}

test('a folder is one process’s until that gives it back; nothing is left of the claim', () => {
  const folder = temporaryFolder();
  const claim = take(folder);
  const { pid, host } = identifyThisProcess();
  expect(readdirSync(folder)).toEqual([FILE]);
  const error = refusal(folder);
  expect(error).toMatchObject({ code: 'MB_FOLDER_CLAIMED', exitCode: 7, details: { pid, host } });
  expect(error.message).toContain(`${folder} is in use by process ${pid} on ${host}, since 20`);
  expect(error.hint).toBe('wait for it to end, or stop it; or name another folder');
  const logs = new FolderClaim(folder, 'run');
  logs.release();
  claim.check();
  claim.release();
  expect(readdirSync(folder)).toEqual([]);
  take(folder);
});

test.each<[string, Partial<ProcessIdentity>]>([
  ['a process that has ended', {}],
  ['a number that another process has now', { pid: process.pid }],
  ['an earlier start of the machine', { boot: 'earlier', pid: process.pid }],
])('taken over: the claim of %s', async (_, change) => {
  const folder = temporaryFolder();
  await left(folder, change);
  const claim = take(folder);
  claim.check();
  expect(readdirSync(folder)).toEqual([FILE]);
  claim.release();
  expect(readdirSync(folder)).toEqual([]);
});

test.each<[string, Partial<ProcessIdentity>]>([
  ['another host', { host: 'node7' }],
  ['a host of the same name', { machine: 'another' }],
  ['another container of this host', { pid_namespace: 'pid:[1]' }],
])('refused: the claim of %s, whose processes are not seen', async (_, change) => {
  const folder = temporaryFolder();
  await left(folder, change);
  const before = readFileSync(join(folder, FILE), 'utf8');
  const error = refusal(folder);
  expect(error.message).toMatch(/since 2026-01-02T03:04:05.000Z \(mbridge pretrain theirs.yaml\)$/);
  expect(error.hint).toContain(`if it has ended, remove ${join(folder, FILE)}`);
  removeDeadClaim(folder, 'save');
  expect(readFileSync(join(folder, FILE), 'utf8')).toBe(before);
  expect(readdirSync(folder)).toEqual([FILE]);
});

test('another container that has been silent for minutes is taken for dead', async () => {
  const folder = temporaryFolder();
  await left(folder, { pid_namespace: 'pid:[1]' });
  const past = Date.now() / 1000 - 3600;
  utimesSync(join(folder, FILE), past, past);
  take(folder);
});

test.each(['', '{', 'null', '{"id":"../../x","pid":1}'])('refused: a claim that says %j', (text) => {
  const folder = temporaryFolder();
  writeFileSync(join(folder, FILE), text);
  expect(refusal(folder).hint).toMatch(/^if nothing uses the folder, remove that file/);
  expect(readFileSync(join(folder, FILE), 'utf8')).toBe(text);
});

test('who dies while it takes a dead claim over is followed in turn', async () => {
  const folder = temporaryFolder();
  await left(folder);
  await left(folder, {}, `${FILE}.after-${'a'.repeat(16)}`, 'b'.repeat(16));
  take(folder).release();
  expect(readdirSync(folder)).toEqual([]);
});

test('a claim that was removed is set again, one that another took is told', async () => {
  const folder = temporaryFolder();
  const claim = take(folder);
  rmSync(join(folder, FILE));
  claim.check();
  expect(existsSync(join(folder, FILE))).toBe(true);
  await left(folder, { host: 'node7' });
  expect(() => {
    claim.check();
  }).toThrow(/in use by process \d+ on node7/);
  claim.release();
  expect(existsSync(join(folder, FILE)), 'theirs stays').toBe(true);
});

test(`of processes that take a folder in the same instant one gets it, ${ROUNDS} times free and ${ROUNDS} times after a kill`, async () => {
  const program = `
    import { existsSync } from 'node:fs';
    const { FolderClaim } = await import(process.argv[1]);
    process.stdout.write('ready');
    while (!existsSync(process.argv[2] + '/go')) await new Promise((r) => setImmediate(r));
    try { new FolderClaim(process.argv[2] + '/saves', 'save'); } catch (e) { process.exit(e.exitCode ?? 1); }
    process.kill(process.pid, 'SIGSTOP');`;
  for (let round = 0; round < 2 * ROUNDS; round++) {
    const folder = temporaryFolder();
    await execa('mkdir', [join(folder, 'saves')]);
    if (round % 2 === 1) await left(join(folder, 'saves'));
    const racers = Array.from({ length: 5 }, () =>
      execa(process.execPath, ['--input-type=module', '-e', program, MODULE, folder], { reject: false }),
    );
    await Promise.all(racers.map((racer) => new Promise((resolve) => racer.stdout.once('data', resolve))));
    writeFileSync(join(folder, 'go'), '');
    // The winner stops and stays; the others end.
    const codes: unknown[] = [];
    await new Promise<void>((resolve) => {
      for (const racer of racers) {
        void racer.then(({ exitCode }) => {
          if (codes.push(exitCode) === racers.length - 1) resolve();
        });
      }
    });
    for (const racer of racers) racer.kill('SIGKILL');
    expect(codes, `round ${round}`).toEqual([7, 7, 7, 7]);
    await Promise.all(racers);
    expect(readdirSync(join(folder, 'saves'))).toEqual([FILE]);
    removeDeadClaim(join(folder, 'saves'), 'save');
    expect(readdirSync(join(folder, 'saves'))).toEqual([]);
  }
}, 240_000);

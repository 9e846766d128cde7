import { cpSync, existsSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { makeFolder } from '../../src/base/make-folder.js';
import { MbridgeError } from '../../src/base/errors.js';
import { writeDurably } from '../../src/checkpoint/files/durable-files.js';
import { layOut } from '../../src/checkpoint/files/safetensors-header.js';
import { Checkpoint } from '../../src/checkpoint/format/checkpoint.js';
import {
  FORMAT,
  isLeftoverName,
  stepFolderName,
  temporaryFolderName,
  VERSION,
  type CheckpointState,
} from '../../src/checkpoint/format/checkpoint-format.js';
import {
  findCheckpoint,
  listRoot,
  removeFolder,
  restoreReplaced,
} from '../../src/checkpoint/format/checkpoint-root.js';
import { publishLatest, sealFolder } from '../../src/checkpoint/format/commit.js';
import { leaveContribution, takeContributions } from '../../src/checkpoint/format/contribution.js';
import { prune } from '../../src/checkpoint/run/prune.js';
import { notForced, replay, traceChanges, type Change } from './file-trace.js';
import { temporaryFolder } from './runs.js';

const full = process.env['MBRIDGE_TEST_FULL'] === '1';
const SHARD = 'weights-00000.safetensors';
const WHOLE = { rows: { start: 0, count: 4 }, cols: { start: 0, count: 4 } };

/** Step, the byte that all weights are made of, keep_last (0: all). */
type Save = readonly [step: number, byte: number, keepLast: number];

interface Scenario {
  readonly before: readonly Save[];
  readonly save: Save;
  /** What may be found at any moment, as step:byte. */
  readonly allowed: readonly (string | null)[];
}

const SCENARIOS: Record<string, Scenario> = {
  'a first save in a new folder': { before: [], save: [2, 2, 0], allowed: [null, '2:2'] },
  'a second save': { before: [[2, 2, 0]], save: [4, 4, 0], allowed: ['2:2', '4:4'] },
  'a second save that removes the first': { before: [[2, 2, 0]], save: [4, 4, 1], allowed: ['2:2', '4:4'] },
  'the same step with other weights, an older one is there': {
    before: [
      [2, 2, 0],
      [4, 4, 0],
    ],
    save: [4, 9, 0],
    allowed: ['4:4', '4:9'],
  },
  'the same step with other weights, a later one is there': {
    before: [
      [6, 6, 0],
      [4, 4, 0],
    ],
    save: [4, 9, 0],
    allowed: ['4:4', '4:9'],
  },
  'the only checkpoint with other weights': { before: [[4, 4, 0]], save: [4, 9, 0], allowed: ['4:4', '4:9'] },
  'the same step with the same weights': { before: [[4, 4, 0]], save: [4, 4, 0], allowed: ['4:4'] },
};

/** A save in the steps of a run's, of a checkpoint with one small tensor. */
async function save(root: string, [step, byte, keepLast]: Save): Promise<void> {
  const temporary = temporaryFolderName(step, 'abcdefabcdef');
  const folder = join(root, temporary);
  const { head, header } = layOut([{ name: 'a', dtype: 'F32', shape: [4, 4] }], {});
  makeFolder(root);
  makeFolder(folder);
  const record = await writeDurably(join(folder, SHARD), [head, Buffer.alloc(header.fileBytes - head.length, byte)]);
  const pieces = [{ file: SHARD, rows: [0, 4], cols: [0, 4] }] as const;
  await leaveContribution(folder, 0, {
    files: { [SHARD]: record },
    tensors: { a: { dtype: 'F32', shape: [4, 4], pieces } },
  });
  await sealFolder(folder, await takeContributions(folder, 1), stateOf(step));
  await publishLatest(root, temporary, stepFolderName(step));
  await prune(root, { keepLast: keepLast || null, keepEvery: null });
}

function stateOf(step: number): CheckpointState {
  const none = { precision: null, optimizer: null, rng: null, layout: null, config: null };
  return { format: FORMAT, version: VERSION, step, consumed_samples: 0, model: {}, versions: {}, ...none };
}

/** What is found at first, and what the next run would load after it has tidied the folder. */
async function look(root: string): Promise<string | null> {
  if (!existsSync(root)) return null;
  const first = await contentOf(root);
  await restoreReplaced(root);
  for (const name of (await listRoot(root))?.unfinished ?? []) if (isLeftoverName(name)) await removeFolder(root, name);
  const second = await contentOf(root);
  return first === second ? first : `${first}, after tidying ${second}`;
}

async function contentOf(root: string): Promise<string | null> {
  const { folder } = await findCheckpoint(root);
  if (folder === null) return null;
  const checkpoint = await Checkpoint.open(folder);
  const values = new Float32Array(16);
  await checkpoint.verifyFiles();
  await checkpoint.readFloats('a', WHOLE, values);
  await checkpoint.close();
  return `${checkpoint.state.step}:${new Uint8Array(values.buffer)[0]}`;
}

/** A folder as it was before the save, which can be set back to that. */
async function prepare({ before }: Scenario): Promise<{ top: string; root: string; reset: () => void }> {
  const folder = temporaryFolder();
  const [top, kept] = [join(folder, 'top'), join(folder, 'kept')];
  const root = join(top, 'new/saves');
  mkdirSync(top);
  for (const each of before) await save(root, each);
  cpSync(top, kept, { recursive: true });
  const reset = (): void => {
    rmSync(top, { recursive: true });
    cpSync(kept, top, { recursive: true });
  };
  return { top, root, reset };
}

const after = ({ save: [step, byte] }: Scenario): string => `${step}:${byte}`;

describe.each(Object.entries(SCENARIOS))('%s', (_, scenario) => {
  test('a crash before any change, or in the middle of it, leaves a checkpoint', async () => {
    const { top, root, reset } = await prepare(scenario);
    const changes = await traceChanges(top, () => save(root, scenario.save));
    expect(await look(root)).toBe(after(scenario));
    const bad: string[] = [];
    for (let count = 0; count <= changes.length; count++) {
      const next = changes[count];
      const halves: (readonly Change[])[] = [[]];
      if (next?.[0] === 'write') halves.push([['write', next[1], next[2], next[3].subarray(0, next[3].length >> 1)]]);
      for (const half of halves) {
        reset();
        replay([...changes.slice(0, count), ...half]);
        const found = await look(root);
        if (!scenario.allowed.includes(found)) bad.push(`before ${next?.slice(0, 3).join(' ')}: ${found}`);
      }
    }
    expect(changes.length).toBeGreaterThan(20);
    expect(bad).toEqual([]);
  });

  test('a power loss that loses what was not forced to the disk leaves a checkpoint', async () => {
    const { top, root, reset } = await prepare(scenario);
    const changes = await traceChanges(top, () => save(root, scenario.save));
    const bad: string[] = [];
    // Each change alone is lost at the end and where the next is a rename, or everywhere in the long form.
    for (let count = 1; count <= changes.length; count++) {
      const next = changes[count]?.[0];
      if (!full && next !== undefined && next !== 'rename' && next !== 'unlink') continue;
      const open = notForced(changes, count);
      for (const index of open) {
        for (const lost of [(i: number) => i === index, (i: number) => i >= index && open.includes(i)]) {
          reset();
          replay(changes.slice(0, count), lost);
          const found = await look(root);
          const allowed = count === changes.length ? [after(scenario)] : scenario.allowed;
          if (!allowed.includes(found)) bad.push(`${changes[index]?.slice(0, 3).join(' ')} lost at ${count}: ${found}`);
        }
      }
    }
    expect(bad).toEqual([]);
  });

  test.each(full ? ['EIO', 'ENOSPC', 'EDQUOT'] : ['EIO'])(
    '%s at any change is told, and leaves a checkpoint',
    async (code) => {
      const { top, root, reset } = await prepare(scenario);
      const bad: string[] = [];
      let made = 0;
      for (const lasting of [false, true]) {
        for (let at = 0; ; at++) {
          reset();
          const outcome: { error?: unknown; count: number } = { count: 0 };
          await traceChanges(
            top,
            () => save(root, scenario.save).catch((error: unknown) => void (outcome.error = error)),
            (index, change) => {
              outcome.count++;
              if (index === at || (lasting && index > at)) {
                throw Object.assign(new Error(`${code}: injected, ${change[0]}`), { code });
              }
            },
          );
          if (outcome.count <= at) break;
          made++;
          const { error } = outcome;
          const found = await look(root);
          if (!scenario.allowed.includes(found)) bad.push(`change ${at}: ${found}`);
          if (error === undefined) bad.push(`change ${at}: not told`);
          // makeFolder's error is the caller's to wrap.
          if (
            !(error instanceof MbridgeError) &&
            !String(error).includes('mkdir') &&
            !String(error).includes('fsync')
          ) {
            bad.push(`change ${at}: ${error as Error}`);
          }
        }
      }
      expect(made).toBeGreaterThan(40);
      expect(bad).toEqual([]);
    },
  );
});

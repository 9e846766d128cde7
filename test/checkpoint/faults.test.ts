import { existsSync, readdirSync, readFileSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { Checkpoint } from '../../src/checkpoint/format/checkpoint.js';
import { findCheckpoint } from '../../src/checkpoint/format/checkpoint-root.js';
import { childrenOf, isAlive, Running, waitFor } from '../job/launch/processes.js';
import { BIN } from '../cli/mbridge.js';
import { expectSameTensors, LAYOUT_FLAGS, pretrain, pretrainArgs, temporaryFolder } from './runs.js';

const ROUNDS = process.env['MBRIDGE_TEST_FULL'] === '1' ? 50 : 5;
const STEPS = 16;

/** Numbers in [0, 1) that a seed decides. */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

test(
  `${ROUNDS} times a rank or the launcher is killed, also in the middle of a save: nothing is lost`,
  { timeout: ROUNDS * 30_000 },
  async () => {
    const folder = temporaryFolder();
    const args = [
      ...LAYOUT_FLAGS['tp2 pp2'],
      `train.train_iters=${STEPS}`,
      'checkpoint.save_interval=1',
      'checkpoint.keep_last=3',
    ];
    const undisturbed = join(folder, 'undisturbed');
    expect((await pretrain({ folder, args: [...args, `checkpoint.save=${undisturbed}`] })).exitCode).toBe(0);
    const final = `step-${String(STEPS).padStart(8, '0')}`;

    const seed = Number(process.env['MBRIDGE_FAULT_SEED'] ?? Date.now() % 100_000);
    const next = random(seed);
    const saved = join(folder, 'saved');
    let [kills, runs, inSave] = [0, 0, 0];
    while (kills < ROUNDS || !existsSync(join(saved, final))) {
      const resume = [...args, `checkpoint.save=${saved}`, `checkpoint.load=${saved}`];
      const run = new Running([process.execPath, BIN, ...pretrainArgs({ folder, args: resume })]);
      const what = `seed ${seed}, run ${++runs}`;
      const before = stepsIn(saved);
      const disturbed = kills < ROUNDS && (await moment(run, saved, next));
      const pids = childrenOf(run.pid);
      if (disturbed) {
        const victims = [run.pid, ...pids];
        process.kill(victims[Math.floor(next() * victims.length)] as number, 'SIGKILL');
        kills++;
      }
      const { code, stderr } = await run.ended;
      if (!disturbed) expect(code, `${what}\n${stderr}`).toBe(0);
      await waitFor('the workers to end', () => (pids.some(isAlive) ? undefined : true));
      if (unfinished(saved).length > 0) inSave++;

      // Whatever was committed before is there or was replaced by newer ones, and what is there is sound.
      const { folder: latest } = existsSync(saved) ? await findCheckpoint(saved) : { folder: null };
      if (before.length > 0) expect(latest, what).not.toBeNull();
      if (latest === null) continue;
      const checkpoint = await Checkpoint.open(latest);
      await checkpoint.verifyFiles();
      await checkpoint.close();
      expect(checkpoint.state.step, what).toBeGreaterThanOrEqual(Math.max(0, ...before));
      if (checkpoint.state.step < STEPS) continue;
      expectSameTensors(join(undisturbed, final), join(saved, final));
      // Killed after its last step: begin anew for the kills that are left.
      if (kills < ROUNDS) renameSync(saved, join(folder, `done-${runs}`));
    }
    expectSameTensors(join(undisturbed, final), join(saved, final));
    expect(unfinished(saved)).toEqual([]);
    console.log(`seed ${seed}: ${kills} kills in ${runs} runs, ${inSave} in the middle of a save`);
  },
);

/** Waits for a moment to kill: some way into the start, after some step, or while a save is being written. */
async function moment(run: Running, saved: string, next: () => number): Promise<boolean> {
  const kind = next();
  const delay = next();
  const ended = run.ended.then(() => true);
  const wait = (ms: number): Promise<boolean> => new Promise((resolve) => setTimeout(() => resolve(false), ms));
  const first = new RegExp(`"type":"step"[^\\n]*\\n`);
  if (kind < 0.2) return !(await Promise.race([ended, wait(delay * 1500)]));
  while (!first.test(run.stdout)) if (await Promise.race([ended, wait(2)])) return false;
  if (kind < 0.5) return !(await Promise.race([ended, wait(delay * 400)]));
  const until = performance.now() + delay * 400;
  while (performance.now() < until || unfinished(saved).length === 0) {
    if (await Promise.race([ended, wait(1)])) return false;
  }
  return true;
}

function unfinished(saved: string): string[] {
  return existsSync(saved) ? readdirSync(saved).filter((name) => name.startsWith('.tmp-step-')) : [];
}

/** Steps of the committed checkpoints, by their markers. */
function stepsIn(saved: string): number[] {
  if (!existsSync(saved)) return [];
  return readdirSync(saved)
    .filter((name) => existsSync(join(saved, name, 'commit.json')) && !name.startsWith('.'))
    .map((name) => (JSON.parse(readFileSync(join(saved, name, 'state.json'), 'utf8')) as { step: number }).step);
}

import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';

/** Linux counts processor time in these, whatever its own clock. */
const TICKS_PER_SECOND = 100;

function ticks(): { busy: number; ours: number } {
  // user nice system idle iowait irq softirq steal: what is neither idle nor waiting for a disk is busy.
  const [, ...fields] = readFileSync('/proc/stat', 'utf8').split('\n')[0]?.split(/\s+/) ?? [];
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0, steal = 0] = fields.map(Number);
  // After the name in parentheses; utime, stime and those of the children that have ended are fields 14 to 17.
  const own = readFileSync('/proc/self/stat', 'utf8').split(') ').at(-1)?.split(' ').slice(11, 15).map(Number) ?? [];
  return { busy: user + nice + system + irq + softirq + steal, ours: own.reduce((sum, part) => sum + part, 0) };
}

/**
 * Runs `work` and says what part of the cores' time others took meanwhile (0 to 1): other programs, and other guests of
 * the host. Ours is this process and the children that have ended.
 */
export async function watchCores<T>(work: () => Promise<T>): Promise<{ result: T; others: number }> {
  const start = performance.now();
  const before = ticks();
  const result = await work();
  const after = ticks();
  const available = ((performance.now() - start) / 1000) * TICKS_PER_SECOND * availableParallelism();
  const others = after.busy - before.busy - (after.ours - before.ours);
  return { result, others: Math.max(0, others / available) };
}

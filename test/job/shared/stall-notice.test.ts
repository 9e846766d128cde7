import { expect, it, onTestFinished, vi } from 'vitest';
import { StallNotice } from '../../../src/job/shared/stall-notice.js';

it('speaks when no rank begins a step, less and less often, and starts anew with progress', () => {
  vi.useFakeTimers();
  const said: string[] = [];
  const notice = new StallNotice(2, (text) => said.push(text));
  onTestFinished(() => {
    notice.close();
    vi.useRealTimers();
  });
  const saidAfter = (seconds: number): string[] => {
    vi.advanceTimersByTime(seconds * 1000);
    return said.splice(0);
  };
  expect(saidAfter(59)).toEqual([]);
  expect(saidAfter(2)).toEqual(['no rank has begun a step for 60 s; still starting']);
  notice.progress(0, 12);
  notice.progress(1, 12);
  expect(saidAfter(59)).toEqual([]);
  expect(saidAfter(2)).toEqual(['no rank has begun a step for 60 s; all ranks are at step 12']);
  notice.progress(0, 13);
  expect(saidAfter(600)).toEqual([
    'no rank has begun a step for 60 s; rank 0 at step 13, rank 1 at step 12',
    'no rank has begun a step for 120 s; rank 0 at step 13, rank 1 at step 12',
    'no rank has begun a step for 240 s; rank 0 at step 13, rank 1 at step 12',
    'no rank has begun a step for 480 s; rank 0 at step 13, rank 1 at step 12',
  ]);
});

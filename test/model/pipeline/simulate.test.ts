import { describe, expect, it } from 'vitest';
import type { ExchangeAction, Schedule, ScheduleAction } from '../../../src/model/pipeline/actions.js';
import { buildSchedule } from '../../../src/model/pipeline/schedule.js';
import { simulate } from '../../../src/model/pipeline/simulate.js';

/** A copy of the schedule with one rank's list changed. */
function edit(schedule: Schedule, rank: number, change: (actions: ScheduleAction[]) => void): Schedule {
  const ranks = schedule.ranks.map((actions) => [...actions]);
  change(ranks[rank]!);
  return { ...schedule, ranks };
}

function exchange(...transfers: ExchangeAction['transfers']): ExchangeAction {
  return { kind: 'exchange', transfers };
}

const shape = { stages: 2, chunks: 1, microBatches: 2 };
const act = { what: 'activation', chunk: 0 } as const;
const grad = { what: 'gradient', chunk: 0 } as const;
const F = (microBatch: number) => ({ kind: 'forward', microBatch, chunk: 0 }) as const;
const B = (microBatch: number) => ({ kind: 'backward', microBatch, chunk: 0 }) as const;

/** The simulator's error code, or 'ok'. */
function outcome(schedule: Schedule): string {
  try {
    simulate(schedule);
    return 'ok';
  } catch (error) {
    return (error as { code?: string }).code ?? String(error);
  }
}

describe('simulate', () => {
  it('counts time: one stage works without a pause', () => {
    expect(simulate(buildSchedule({ stages: 1, chunks: 1, microBatches: 4 }))).toEqual({
      makespan: 12,
      finish: [12],
      bubble: 0,
    });
    expect(simulate(buildSchedule({ stages: 4, chunks: 1, microBatches: 8 })).bubble).toBeCloseTo(3 / 11, 12);
    expect(simulate(buildSchedule({ stages: 2, chunks: 1, microBatches: 4, forwardOnly: true })).makespan).toBe(5);
  });

  it('names the ranks of a deadlock: each sends first, in exchanges of their own', () => {
    // Rank 0 waits for its send of F1 before it takes gradient 0; rank 1 waits for its send of gradient 0 first.
    const ranks: ScheduleAction[][] = [
      [
        F(0),
        exchange({ direction: 'send', peer: 1, microBatch: 0, ...act }),
        F(1),
        exchange({ direction: 'send', peer: 1, microBatch: 1, ...act }),
        exchange({ direction: 'receive', peer: 1, microBatch: 0, ...grad }),
        B(0),
        exchange({ direction: 'receive', peer: 1, microBatch: 1, ...grad }),
        B(1),
      ],
      [
        exchange({ direction: 'receive', peer: 0, microBatch: 0, ...act }),
        F(0),
        B(0),
        exchange({ direction: 'send', peer: 0, microBatch: 0, ...grad }),
        exchange({ direction: 'receive', peer: 0, microBatch: 1, ...act }),
        F(1),
        B(1),
        exchange({ direction: 'send', peer: 0, microBatch: 1, ...grad }),
      ],
    ];
    expect(() => simulate({ ...shape, forwardOnly: false, ranks })).toThrow(
      expect.objectContaining({
        code: 'MB_SCHEDULE_DEADLOCK',
        details: { ranks: [0, 1] },
        message: expect.stringMatching(/rank 0 waits in send of activation 1 .*rank 1 waits in send of gradient 0/),
      }),
    );
  });

  it('lets exchanges form a chain, and finds a ring of them', () => {
    const forwardOnly = { stages: 3, chunks: 2, microBatches: 3, forwardOnly: true } as const;
    const schedule = buildSchedule(forwardOnly);
    expect(outcome(schedule)).toBe('ok');
    // Every rank receives before it sends what the next one waits for: a cycle through the ring.
    const ranks = schedule.ranks.map((actions) => {
      const receives = actions
        .flatMap((a) => (a.kind === 'exchange' ? a.transfers : []))
        .filter((t) => t.direction === 'receive');
      const sends = actions
        .flatMap((a) => (a.kind === 'exchange' ? a.transfers : []))
        .filter((t) => t.direction === 'send');
      const computes = actions.filter((a) => a.kind !== 'exchange');
      return [...receives.map((t) => exchange(t)), ...computes, ...sends.map((t) => exchange(t))];
    });
    expect(outcome({ ...schedule, ranks })).toBe('MB_SCHEDULE_DEADLOCK');
  });

  it.each<[string, (actions: ScheduleAction[]) => void, string]>([
    ['a forward before its input', (a) => a.splice(0, 2, a[1]!, a[0]!), 'MB_SCHEDULE_INPUT'],
    ['a forward twice', (a) => a.splice(1, 0, a[1]!), 'MB_SCHEDULE_INCOMPLETE'],
    ['a backward before the forward', (a) => a.splice(1, 3, a[3]!, a[2]!, a[1]!), 'MB_SCHEDULE_INPUT'],
    ['a missing last backward', (a) => a.splice(-2), 'MB_SCHEDULE_DEADLOCK'],
    ['micro-batches out of order', (a) => a.splice(1, 1, F(1)), 'MB_SCHEDULE_ORDER'],
    ['a chunk that is not there', (a) => a.splice(1, 1, { ...F(0), chunk: 1 }), 'MB_SCHEDULE_INCOMPLETE'],
    [
      'a receive of another micro-batch',
      (a) => a.splice(0, 1, exchange({ direction: 'receive', peer: 0, microBatch: 1, ...act })),
      'MB_SCHEDULE_MISMATCH',
    ],
    [
      'a receive of a gradient where an activation comes',
      (a) => a.splice(0, 1, exchange({ direction: 'receive', peer: 0, microBatch: 0, ...grad })),
      'MB_SCHEDULE_MISMATCH',
    ],
    [
      'a peer that does not exist',
      (a) => a.splice(0, 1, exchange({ direction: 'receive', peer: 2, microBatch: 0, ...act })),
      'MB_SCHEDULE_MISMATCH',
    ],
    [
      'a send before its compute',
      (a) =>
        a.splice(
          0,
          1,
          exchange(...(a[0] as ExchangeAction).transfers, { direction: 'send', peer: 0, microBatch: 0, ...grad }),
        ),
      'MB_SCHEDULE_INPUT',
    ],
  ])('catches %s', (_, change, code) => {
    expect(outcome(edit(buildSchedule(shape), 1, change))).toBe(code);
  });

  it('catches work left out on both sides', () => {
    const schedule = buildSchedule({ stages: 1, chunks: 1, microBatches: 2 });
    expect(outcome(edit(schedule, 0, (actions) => actions.pop()))).toBe('MB_SCHEDULE_INCOMPLETE');
  });

  it('catches every single dropped, repeated or retargeted action', () => {
    for (const whole of [
      { stages: 3, chunks: 1, microBatches: 4 },
      { stages: 2, chunks: 2, microBatches: 4 },
      { stages: 4, chunks: 3, microBatches: 8 },
    ]) {
      const schedule = buildSchedule(whole);
      let cases = 0;
      schedule.ranks.forEach((actions, rank) => {
        actions.forEach((action, index) => {
          const where = `${JSON.stringify(whole)} rank ${rank} action ${index}`;
          expect(outcome(edit(schedule, rank, (list) => list.splice(index, 1))), `drop ${where}`).not.toBe('ok');
          expect(outcome(edit(schedule, rank, (list) => list.splice(index, 0, action))), `repeat ${where}`).not.toBe(
            'ok',
          );
          cases += 2;
          if (action.kind !== 'exchange') return;
          action.transfers.forEach((transfer, at) => {
            const wrong = exchange(
              ...action.transfers.with(at, { ...transfer, microBatch: (transfer.microBatch + 1) % whole.microBatches }),
            );
            expect(outcome(edit(schedule, rank, (list) => list.splice(index, 1, wrong))), `alter ${where}`).not.toBe(
              'ok',
            );
            const less = action.transfers.filter((_, other) => other !== at);
            const without = less.length > 0 ? [exchange(...less)] : [];
            expect(outcome(edit(schedule, rank, (list) => list.splice(index, 1, ...without))), `cut ${where}`).not.toBe(
              'ok',
            );
            cases += 2;
          });
        });
      });
      expect(cases).toBeGreaterThan(100);
    }
  });

  it('catches swapped neighbours, unless they do not depend on each other', () => {
    const schedule = buildSchedule({ stages: 4, chunks: 1, microBatches: 6 });
    let caught = 0;
    schedule.ranks.forEach((actions, rank) => {
      for (let index = 0; index + 1 < actions.length; index++) {
        const swapped = edit(schedule, rank, (list) => list.splice(index, 2, list[index + 1]!, list[index]!));
        if (outcome(swapped) !== 'ok') caught++;
        else {
          // What passes must be a legal order: the same work, every input there, and it still ends.
          expect(simulate(swapped).makespan).toBeGreaterThanOrEqual(simulate(schedule).makespan);
        }
      }
    });
    expect(caught).toBeGreaterThan(40);
  });
});

import { describe, expect, it } from 'vitest';
import {
  bufferNeeds,
  isFirstMicroBatch,
  isLastMicroBatch,
  maxInFlight,
  slotOf,
} from '../../../src/model/pipeline/schedule-buffers.js';
import { computeOrder, warmupForwards } from '../../../src/model/pipeline/schedule-order.js';
import type { ComputeAction, Schedule } from '../../../src/model/pipeline/actions.js';
import { buildSchedule } from '../../../src/model/pipeline/schedule.js';
import { simulate } from '../../../src/model/pipeline/simulate.js';

/** Every shape up to P 8, V 4, M 16 that has a schedule. */
const SHAPES = [1, 2, 3, 4, 5, 6, 7, 8].flatMap((stages) =>
  [1, 2, 3, 4].flatMap((chunks) =>
    Array.from({ length: 16 }, (_, m) => ({ stages, chunks, microBatches: m + 1 })).filter(
      ({ microBatches }) => chunks === 1 || (stages > 1 && microBatches % stages === 0),
    ),
  ),
);

function compute(schedule: Schedule, rank: number): ComputeAction[] {
  return schedule.ranks[rank]!.filter((action): action is ComputeAction => action.kind !== 'exchange');
}

function letters(schedule: Schedule, rank: number): string {
  return schedule.ranks[rank]!.map((action) => {
    if (action.kind !== 'exchange') {
      return `${action.kind === 'forward' ? 'F' : 'B'}${action.microBatch}${schedule.chunks > 1 ? `.${action.chunk}` : ''}`;
    }
    const parts = action.transfers.map(
      (t) => `${t.direction === 'send' ? '>' : '<'}${t.what === 'activation' ? 'a' : 'g'}${t.microBatch}@${t.peer}`,
    );
    return `(${parts.join(' ')})`;
  }).join(' ');
}

describe('buildSchedule', () => {
  // Warm-up counts: Megatron-Core's get_forward_backward_func for these shapes.
  it.each([
    { stages: 2, chunks: 1, microBatches: 4, warmups: [1, 0] },
    { stages: 4, chunks: 1, microBatches: 8, warmups: [3, 2, 1, 0] },
    { stages: 4, chunks: 1, microBatches: 2, warmups: [2, 2, 1, 0] },
    { stages: 2, chunks: 2, microBatches: 4, warmups: [4, 2] },
    { stages: 4, chunks: 2, microBatches: 8, warmups: [10, 8, 6, 4] },
  ])('warms up PP$stages V$chunks M$microBatches by $warmups', ({ warmups, ...shape }) => {
    expect(warmups.map((_, rank) => warmupForwards(shape, rank))).toEqual(warmups);
    const schedule = buildSchedule(shape);
    // In the steady phase a forward precedes each backward, so the first backward comes after warm-up + 1 forwards.
    warmups.forEach((warmup, rank) => {
      const first = compute(schedule, rank).findIndex((action) => action.kind === 'backward');
      expect(first).toBe(Math.min(warmup + 1, shape.microBatches * shape.chunks));
    });
  });

  it('is 1F1B for two stages and four micro-batches, communication included', () => {
    const schedule = buildSchedule({ stages: 2, chunks: 1, microBatches: 4 });
    expect([letters(schedule, 0), letters(schedule, 1)]).toEqual([
      'F0 (>a0@1) F1 (>a1@1) (<g0@1) B0 F2 (>a2@1 <g1@1) B1 F3 (>a3@1 <g2@1) B2 (<g3@1) B3',
      '(<a0@0) F0 (<a1@0) B0 (>g0@0) F1 B1 (<a2@0 >g1@0) F2 B2 (<a3@0 >g2@0) F3 B3 (>g3@0)',
    ]);
  });

  it('takes micro-batches in groups of P through the chunks', () => {
    // Schedule table for M4 V2 G2 in Megatron-Core's interleaved schedule.
    const forwards = computeOrder({ stages: 2, chunks: 2, microBatches: 4, forwardOnly: true })[0]!;
    expect(forwards.map(({ microBatch, chunk }) => [microBatch, chunk])).toEqual([
      [0, 0], [1, 0], [0, 1], [1, 1], [2, 0], [3, 0], [2, 1], [3, 1],
    ]); // prettier-ignore
    const backwards = compute(buildSchedule({ stages: 2, chunks: 2, microBatches: 4 }), 0).filter(
      (action) => action.kind === 'backward',
    );
    expect(backwards.map(({ microBatch, chunk }) => [microBatch, chunk])).toEqual([
      [0, 1], [1, 1], [0, 0], [1, 0], [2, 1], [3, 1], [2, 0], [3, 0],
    ]); // prettier-ignore
  });

  it('sends the last rank’s chunk round to the first rank’s next chunk', () => {
    const schedule = buildSchedule({ stages: 4, chunks: 2, microBatches: 4 });
    const wraps = schedule.ranks[3]!.flatMap((action) =>
      action.kind === 'exchange'
        ? action.transfers.filter((t) => t.direction === 'send' && t.what === 'activation')
        : [],
    );
    expect(wraps).toEqual(
      [0, 1, 2, 3].map((microBatch) => ({ direction: 'send', what: 'activation', peer: 0, microBatch, chunk: 0 })),
    );
    const received = schedule.ranks[0]!.flatMap((action) =>
      action.kind === 'exchange'
        ? action.transfers.filter((t) => t.direction === 'receive' && t.what === 'activation')
        : [],
    );
    expect(received.map(({ peer, microBatch, chunk }) => [peer, microBatch, chunk])).toEqual([
      [3, 0, 1], [3, 1, 1], [3, 2, 1], [3, 3, 1],
    ]); // prettier-ignore
  });

  it('has nothing to exchange on one stage', () => {
    expect(letters(buildSchedule({ stages: 1, chunks: 1, microBatches: 2 }), 0)).toBe('F0 B0 F1 B1');
  });

  it.each([
    [{ stages: 0, chunks: 1, microBatches: 1 }, 'MB_SCHEDULE_SIZE'],
    [{ stages: 2, chunks: 1, microBatches: 0 }, 'MB_SCHEDULE_SIZE'],
    [{ stages: 2, chunks: 1.5, microBatches: 2 }, 'MB_SCHEDULE_SIZE'],
    [{ stages: 1, chunks: 2, microBatches: 2 }, 'MB_SCHEDULE_SINGLE_STAGE'],
    [{ stages: 2, chunks: 2, microBatches: 3 }, 'MB_SCHEDULE_MICRO_BATCHES'],
  ])('refuses %o', (shape, code) => {
    expect(() => buildSchedule(shape)).toThrow(expect.objectContaining({ code, exitCode: 3 }));
  });

  it('runs without deadlock, in order and completely, for every shape', () => {
    expect(SHAPES.length).toBeGreaterThan(200);
    for (const shape of SHAPES) {
      for (const forwardOnly of [false, true]) {
        const schedule = buildSchedule({ ...shape, forwardOnly });
        simulate(schedule);
        schedule.ranks.forEach((_, rank) => {
          for (const kind of ['forward', 'backward'] as const) {
            for (let chunk = 0; chunk < shape.chunks; chunk++) {
              const order = compute(schedule, rank).filter((a) => a.kind === kind && a.chunk === chunk);
              const expected = kind === 'backward' && forwardOnly ? 0 : shape.microBatches;
              expect(order.map((a) => a.microBatch)).toEqual(Array.from({ length: expected }, (_, m) => m));
            }
          }
        });
      }
    }
  });

  it('wastes no time: 1F1B ends after (M + P - 1) forwards and backwards', () => {
    for (const shape of SHAPES.filter(({ chunks }) => chunks === 1)) {
      expect(simulate(buildSchedule(shape)).makespan, JSON.stringify(shape)).toBe(
        (shape.microBatches + shape.stages - 1) * 3,
      );
    }
  });

  it('wastes no time: interleaving divides the bubble by V where exchanges overlap computes', () => {
    for (const shape of SHAPES.filter(({ chunks }) => chunks > 1)) {
      const { stages, chunks, microBatches } = shape;
      const { makespan } = simulate(buildSchedule(shape), { overlap: true });
      const ideal = (microBatches * chunks + stages - 1) * 3;
      // Deeper pipelines lose a few units in the warm-up, where a rank exchanges after every forward.
      expect(makespan, JSON.stringify(shape)).toBeLessThanOrEqual(ideal + (stages <= 5 ? 0 : stages));
    }
  });
});

describe('buffers', () => {
  it.each([
    { stages: 4, chunks: 1, microBatches: 8, inFlight: [[4], [3], [2], [1]] },
    { stages: 4, chunks: 1, microBatches: 2, inFlight: [[2], [2], [2], [1]] },
    { stages: 1, chunks: 1, microBatches: 3, inFlight: [[1]] },
    { stages: 2, chunks: 2, microBatches: 4, inFlight: [[4, 2], [3, 1]] }, // prettier-ignore
  ])('holds $inFlight micro-batches for PP$stages V$chunks M$microBatches', ({ inFlight, ...shape }) => {
    const schedule = buildSchedule(shape);
    expect(inFlight.map((_, rank) => maxInFlight(schedule, rank))).toEqual(inFlight);
  });

  it('gives every micro-batch a slot that is free, for every shape', () => {
    for (const shape of SHAPES) {
      const schedule = buildSchedule(shape);
      schedule.ranks.forEach((actions, rank) => {
        const needs = bufferNeeds(schedule, rank);
        const slots = new Map<string, number>();
        const take = (kind: string, chunk: number, microBatch: number, count: number): void => {
          const slot = `${kind} ${chunk} ${slotOf(microBatch, count)}`;
          expect(slots.has(slot), `${slot} ${JSON.stringify(shape)}`).toBe(false);
          slots.set(slot, microBatch);
        };
        const free = (kind: string, chunk: number, microBatch: number, count: number): void => {
          const slot = `${kind} ${chunk} ${slotOf(microBatch, count)}`;
          expect(slots.get(slot)).toBe(microBatch);
          slots.delete(slot);
        };
        const last = shape.stages * shape.chunks - 1;
        for (const action of actions) {
          if (action.kind === 'exchange') {
            for (const { direction, what, chunk, microBatch } of action.transfers) {
              if (direction === 'send') continue;
              const need = needs[chunk]!;
              if (what === 'gradient') take('gradient', chunk, microBatch, need.waitingGradients);
              else {
                take('input', chunk, microBatch, need.inputs);
                take('waiting', chunk, microBatch, need.waitingInputs);
              }
            }
            continue;
          }
          const { chunk, microBatch } = action;
          const need = needs[chunk]!;
          const stage = chunk * shape.stages + rank;
          if (action.kind === 'forward') {
            take('saved', chunk, microBatch, need.inFlight);
            if (stage === 0) take('input', chunk, microBatch, need.inputs);
            else free('waiting', chunk, microBatch, need.waitingInputs);
          } else {
            free('saved', chunk, microBatch, need.inFlight);
            free('input', chunk, microBatch, need.inputs);
            if (stage !== last) free('gradient', chunk, microBatch, need.waitingGradients);
          }
        }
        expect(slots.size).toBe(0);
      });
    }
  });

  it('needs no saved activations for evaluation', () => {
    const schedule = buildSchedule({ stages: 2, chunks: 1, microBatches: 4, forwardOnly: true });
    expect(bufferNeeds(schedule, 1)).toEqual([{ inFlight: 0, inputs: 0, waitingInputs: 1, waitingGradients: 0 }]);
  });

  it('tells the first and the last micro-batch', () => {
    const schedule = buildSchedule({ stages: 1, chunks: 1, microBatches: 3 });
    const backwards = compute(schedule, 0).filter((action) => action.kind === 'backward');
    expect(backwards.map(isFirstMicroBatch)).toEqual([true, false, false]);
    expect(backwards.map((action) => isLastMicroBatch(schedule, action))).toEqual([false, false, true]);
  });
});

import { expect, test } from 'vitest';
import { qwen3TinyPretrainConfig } from '../../recipes/qwen3.js';
import type { Piece } from '../../src/model/parameters/rectangle.js';
import { planTransfer, roundsOf } from '../../src/model/transfer/transfer-plan.js';
import { runWorkers } from '../helpers/run-workers.js';
import { expectAdoptions, SHARDING, type Adoption } from '../helpers/transfers.js';

const piece = (name: string, rows: [number, number], cols: [number, number]): Piece => ({
  name,
  rows: { start: rows[0], count: rows[1] },
  cols: { start: cols[0], count: cols[1] },
});
const text = (move: Piece & { from: number; to: number }): string =>
  `${move.from}>${move.to} ${move.rows.start}+${move.rows.count},${move.cols.start}+${move.cols.count}`;

test('a plan fills each target once, from the rank itself where it can, else spread over those that have it', () => {
  // Rows on two ranks, columns on two others and on one of the first.
  const source = new Map([
    [0, [piece('w', [0, 4], [0, 8])]],
    [1, [piece('w', [4, 4], [0, 8])]],
  ]);
  const target = new Map([
    [1, [piece('w', [0, 8], [0, 4])]],
    [2, [piece('w', [0, 8], [4, 4])]],
  ]);
  expect(planTransfer(source, target).map(text).sort()).toEqual([
    '0>1 0+4,0+4',
    '0>2 0+4,4+4',
    '1>1 4+4,0+4',
    '1>2 4+4,4+4',
  ]);
  const everywhere = new Map([0, 1, 2].map((rank) => [rank, [piece('w', [0, 2], [0, 2])]]));
  const wanted = new Map([3, 4, 5].map((rank) => [rank, [piece('w', [0, 2], [0, 2])]]));
  expect(planTransfer(everywhere, wanted).map(text)).toEqual(['0>3 0+2,0+2', '1>4 0+2,0+2', '2>5 0+2,0+2']);
  expect(() => planTransfer(source, new Map([[0, [piece('w', [0, 9], [0, 8])]]]))).toThrow(
    '[8:9, 0:8] of w is not in the source',
  );
});

test('rounds hold what they may, a larger move cut by rows', () => {
  const move = (from: number, to: number, count: number) => ({ ...piece('w', [0, count], [0, 1]), from, to });
  const moves = [move(0, 1, 3), move(0, 2, 3), move(1, 2, 9), move(2, 0, 1), move(1, 0, 4)];
  const rounds = roundsOf(moves, 6);
  const rowsOf = (round: typeof moves): string[] => round.map((each) => `${each.from}>${each.to} ${each.rows.count}`);
  expect(rounds.map(rowsOf)).toEqual([['0>1 3', '0>2 3'], ['1>2 6'], ['1>2 3', '2>0 1'], ['1>0 4']]);
});

const LAYOUTS = {
  tp4: { tp: 4, pp: 1, dp: 1 },
  'tp2 pp2': { tp: 2, pp: 2, dp: 1 },
  dp4: { tp: 1, pp: 1, dp: 4 },
  'pp2 on the last': { tp: 1, pp: 2, dp: 1, first: 2 },
  'tp2 on the first': { tp: 2, pp: 1, dp: 1 },
} as const;
/** And more, for weights alone: a rank of its own, sequence parallel, two chunks a stage. */
const MORE_LAYOUTS = {
  ...LAYOUTS,
  'one on the third': { tp: 1, pp: 1, dp: 1, first: 2 },
  'tp2 sp on the last': { tp: 2, pp: 1, dp: 1, first: 2, model: { sequence_parallel: true } },
  'pp2 vpp2': { tp: 1, pp: 2, dp: 1, model: { virtual_pipeline_model_parallel_size: 2 } },
} as const;
/** In CI a few of the pairs. */
const FULL = process.env['MBRIDGE_TEST_FULL'] === '1';
const NAMES = Object.keys(LAYOUTS) as (keyof typeof LAYOUTS)[];

test('weights go to every layout and back with the same bits', async () => {
  const config = qwen3TinyPretrainConfig({ train_iters: 1, seq_length: 16, micro_batch_size: 1, global_batch_size: 4 });
  // A vocabulary that tp does not divide.
  config.model.vocab_size = 301;
  const names = Object.keys(MORE_LAYOUTS) as (keyof typeof MORE_LAYOUTS)[];
  const all = names.flatMap((from) => names.map((to) => ({ from, to })));
  const pairs = FULL ? all : all.filter((_, i) => i % 13 === 1);
  const layouts = pairs.map(({ from, to }) => ({ from: MORE_LAYOUTS[from], to: MORE_LAYOUTS[to] }));
  const options = { pairs: layouts, stagingBytes: 1 << 20 };
  const { exitCode, events, log } = await runWorkers('transfer', config, 4, options);
  expect(exitCode, log).toBe(0);
  const moved = events.filter(({ type }) => type === 'moved') as unknown as {
    pair: number;
    parameters: number;
    unchanged: number;
    differ: string[];
  }[];
  expect(moved).toHaveLength(4 * pairs.length);
  for (const { pair, differ, parameters, unchanged } of moved) {
    expect(differ, `${pairs[pair]!.from} to ${pairs[pair]!.to}`).toEqual([]);
    // But for the norms, which begin as ones.
    if (parameters > 0) expect(unchanged).toBeLessThan(parameters);
  }
}, 120_000);

test('the next update of a model that is trained is that of one which was loaded with the weights', async () => {
  const all = NAMES.flatMap((from) => NAMES.filter((to) => to !== from).map((to) => [from, to] as const));
  const some = [
    ['tp4', 'dp4'],
    ['dp4', 'tp2 pp2'],
    ['tp2 pp2', 'dp4'],
  ] as const;
  const adoptions = (FULL ? all : some).flatMap(([from, to], i) =>
    (FULL ? SHARDING : [SHARDING[i % SHARDING.length]!]).flatMap((sharding): Adoption[] => {
      const common = { from: LAYOUTS[from], to: LAYOUTS[to], sharding };
      return [
        { ...common, precision: 'fp32', source: 'trained', updates: true },
        // No CPU trains in bf16: test/gpu does.
        { ...common, precision: 'bf16_mixed', source: 'trained', updates: false },
        { ...common, precision: 'bf16_mixed', source: 'frozen', updates: false },
      ];
    }),
  );
  await expectAdoptions(adoptions, { ranks: 4 });
}, 300_000);

test('a target of another shape is refused on every rank', async () => {
  const config = qwen3TinyPretrainConfig({ train_iters: 1, seq_length: 16, micro_batch_size: 1, global_batch_size: 2 });
  const options = { pairs: [], refused: [{ layers: 5 }] };
  const { exitCode, events, log } = await runWorkers('transfer', config, 2, options);
  expect(exitCode, log).toBe(0);
  const found = events.filter(({ type }) => type === 'refused') as unknown as { code: string; message: string }[];
  expect(found).toHaveLength(2);
  expect(new Set(found.map(({ code }) => code))).toEqual(new Set(['MB_TRANSFER']));
  expect(new Set(found.map(({ message }) => message.replace(/\[.*?\]/, '[...]')))).toEqual(
    new Set(['[...] of model.layers.4.self_attn.q_proj.weight is not in the source']),
  );
});

// Draws the pictures of docs/layouts.md, of what the code does: the ranks of a grid, and pipeline schedules. `--check` only
// says whether they are up to date.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { HyperCommGrid } from '../dist/src/groups/grid/hyper-comm-grid.js';
import { buildSchedule } from '../dist/src/model/pipeline/schedule.js';
import { inputOf } from '../dist/src/model/pipeline/stage-flow.js';

const folder = join(dirname(fileURLToPath(import.meta.url)), '..', 'docs', 'images');
const FONT = 'font-family="system-ui, sans-serif" font-size="13"';
const INK = '#1f2328';

function svg(width, height, title, parts) {
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" role="img" ${FONT}>`,
    `<title>${title}</title>`,
    `<rect width="${width}" height="${height}" rx="8" fill="#ffffff"/>`,
    ...parts,
    '</svg>\n',
  ].join('\n');
}

function box(x, y, width, height, fill, label, ink = INK) {
  const text = `<text x="${x + width / 2}" y="${y + height / 2 + 4.5}" text-anchor="middle" fill="${ink}">${label}</text>`;
  return `<rect x="${x}" y="${y}" width="${width}" height="${height}" rx="3" fill="${fill}" stroke="#57606a"/>${text}`;
}

function label(x, y, text, anchor = 'start') {
  return `<text x="${x}" y="${y}" text-anchor="${anchor}" fill="${INK}">${text}</text>`;
}

/** Stages as columns, replicas as rows, in each the ranks that share its layers. */
function gridPicture([tp, dp, pp], layers) {
  const grid = new HyperCommGrid({
    shape: [tp, 1, dp, pp],
    dimNames: ['tp', 'cp', 'dp', 'pp'],
    worldSize: tp * dp * pp,
    backend: 'nccl',
  });
  const parts = [];
  const [cell, left, top] = [64, 90, 40];
  const column = tp * cell + 70;
  const row = 92;
  const fills = ['#ddf4ff', '#dafbe1'];
  for (let p = 0; p < pp; p++) {
    const x = left + p * column;
    parts.push(label(x + (tp * cell) / 2, 24, `stage ${p}: layers ${p * layers}-${(p + 1) * layers - 1}`, 'middle'));
    for (let d = 0; d < dp; d++) {
      const y = top + d * row;
      for (let t = 0; t < tp; t++) {
        const rank = grid.ranks[t + tp * (d + dp * p)];
        parts.push(box(x + t * cell, y, cell - 6, 44, fills[t % 2], `rank ${rank}`));
        const half = `${t + 1}/${tp} of each`;
        parts.push(
          label(x + t * cell + (cell - 6) / 2, y + 60, half, 'middle').replace('<text', '<text font-size="10"'),
        );
      }
      if (p + 1 < pp) {
        const from = x + tp * cell;
        parts.push(
          `<path d="M${from} ${y + 22} h${column - tp * cell - 14}" stroke="#57606a" marker-end="url(#to)"/>`,
          label(from + (column - tp * cell) / 2 - 6, y + 15, 'pp', 'middle'),
        );
      }
    }
  }
  for (let d = 0; d < dp; d++) parts.push(label(10, top + d * row + 27, `replica ${d}`));
  const y = top + dp * row + 4;
  parts.push(
    label(
      10,
      y,
      'side by side (tp): a part of every layer each; above one another (dp): the same layers, other samples',
    ),
  );
  const head =
    '<defs><marker id="to" markerWidth="8" markerHeight="8" refX="6" refY="3" orient="auto"><path d="M0 0 L6 3 L0 6 z" fill="#57606a"/></marker></defs>';
  return svg(Math.max(left + pp * column, 700), y + 16, `8 ranks as tp ${tp}, dp ${dp}, pp ${pp}`, [head, ...parts]);
}

/** When each compute of a schedule begins and ends, with transfers that take no time. */
function timesOf(schedule, cost) {
  const ends = new Map();
  const keyOf = (rank, { kind, microBatch, chunk }) => `${rank} ${kind} ${microBatch} ${chunk}`;
  const found = [];
  const next = schedule.ranks.map(() => 0);
  const free = schedule.ranks.map(() => 0);
  for (let moved = true; moved;) {
    moved = false;
    schedule.ranks.forEach((actions, rank) => {
      while (next[rank] < actions.length) {
        const action = actions[next[rank]];
        if (action.kind !== 'exchange') {
          const input = inputOf(schedule, rank, action);
          const ready = input === undefined ? 0 : ends.get(keyOf(input.rank, input.action));
          if (ready === undefined) return;
          const begin = Math.max(free[rank], ready);
          free[rank] = begin + cost[action.kind];
          ends.set(keyOf(rank, action), free[rank]);
          found.push({ rank, begin, end: free[rank], action });
        }
        next[rank]++;
        moved = true;
      }
    });
  }
  return found;
}

function pipelinePicture(shape, scale) {
  const schedule = buildSchedule(shape);
  const cost = { forward: scale, backward: 2 * scale };
  const [unit, left, top, row] = [26, 76, 34, 34];
  const times = timesOf(schedule, cost);
  const end = Math.max(...times.map((each) => each.end));
  const fills = { forward: ['#ddf4ff', '#b6e3ff'], backward: ['#fff1c2', '#ffd8b5'] };
  const parts = times.map(({ rank, begin, end: stop, action }) =>
    box(
      left + begin * unit,
      top + rank * row,
      (stop - begin) * unit - 1,
      row - 6,
      fills[action.kind][action.chunk % 2],
      action.microBatch,
    ),
  );
  schedule.ranks.forEach((_, rank) => parts.push(label(10, top + rank * row + 19, `stage ${rank}`)));
  const work = shape.microBatches * shape.chunks * 3 * scale;
  const bubble = Math.round((1 - work / end) * 100);
  const chunks = shape.chunks > 1 ? `, ${shape.chunks} chunks a stage (darker: the second)` : '';
  const title = `pp ${shape.stages}${chunks}, ${shape.microBatches} micro-batches: ${bubble} % of the time is empty`;
  const bottom = top + shape.stages * row + 12;
  parts.push(
    label(10, 20, title),
    label(left, bottom, 'blue: forward, yellow: backward, numbered by micro-batch; time to the right'),
  );
  return svg(left + end * unit + 10, bottom + 12, title, parts);
}

const pictures = {
  'layout.svg': gridPicture([2, 2, 2], 18),
  'pipeline.svg': pipelinePicture({ stages: 4, chunks: 1, microBatches: 8 }, 1),
  'pipeline-interleaved.svg': pipelinePicture({ stages: 4, chunks: 2, microBatches: 8 }, 0.5),
};
mkdirSync(folder, { recursive: true });
for (const [name, text] of Object.entries(pictures)) {
  const file = join(folder, name);
  if (!process.argv.includes('--check')) writeFileSync(file, text);
  else if (text !== readFileSync(file, 'utf8')) {
    console.error(
      `docs/images/${name} is not what the code does: npm run build:ts && node scripts/layout-pictures.mjs`,
    );
    process.exitCode = 1;
  }
}

import { InvalidArgumentError, type Command } from 'commander';
import { outputLine } from '../../outputs/line.js';
import { snakeKeys } from '../../outputs/snake-keys.js';
import { parseCount } from '../shared/run-options.js';

interface GridOptions {
  readonly nproc: number;
  readonly tpSize: number;
  readonly ppSize: number;
  readonly cpSize: number;
  readonly epSize: number;
  readonly rankOffset: number;
  readonly worldSize?: number;
  readonly json?: boolean;
}

const DIM_NAMES = ['tp', 'cp', 'dp', 'pp'] as const;

/** `mbridge grid`: who talks to whom, without starting anything. */
export function addGrid(program: Command): void {
  program
    .command('grid')
    .description('print the process groups of a layout')
    .requiredOption('--nproc <n>', 'ranks of the grid', parseCount)
    .option('--tp-size <n>', 'tensor-parallel ranks', parseCount, 1)
    .option('--pp-size <n>', 'pipeline stages', parseCount, 1)
    .option('--cp-size <n>', 'context-parallel ranks', parseCount, 1)
    .option('--ep-size <n>', 'expert-parallel ranks', parseCount, 1)
    .option('--rank-offset <n>', 'first rank of the grid', parseOffset, 0)
    .option('--world-size <n>', 'ranks of the world; default: up to the last of the grid', parseCount)
    .option('--json', 'as JSON')
    .action(async (options: GridOptions) => {
      const { shape, groups } = await layOut(options);
      process.stdout.write(
        options.json
          ? outputLine('grid', { shape, groups: snakeKeys(groups) })
          : await asText(shape, groups, options.epSize > 1),
      );
    });
}

function parseOffset(text: string): number {
  if (text === '0') return 0;
  try {
    return parseCount(text);
  } catch {
    throw new InvalidArgumentError('Expected an integer of at least 0.');
  }
}

type Shape = Readonly<Record<(typeof DIM_NAMES)[number], number>>;
type Groups = Readonly<Record<string, readonly (readonly number[])[]>>;

async function layOut(options: GridOptions): Promise<{ shape: Shape; groups: Groups }> {
  const { nproc, tpSize: tp, ppSize: pp, cpSize: cp, epSize: ep, rankOffset } = options;
  const { MbridgeError } = await import('../../base/errors.js');
  const { groupRanks } = await import('../../groups/grid/group-fields.js');
  const { HyperCommGrid } = await import('../../groups/grid/hyper-comm-grid.js');
  const dp = nproc / (tp * cp * pp);
  if (!Number.isInteger(dp)) {
    const product = `tp ${tp} x cp ${cp} x pp ${pp} = ${tp * cp * pp}`;
    throw new MbridgeError('config', 'MB_CONFIG_LAYOUT', `${product} does not divide the ${nproc} ranks`, {
      hint: 'change --nproc, --tp-size, --cp-size or --pp-size',
    });
  }
  const shape = { tp, cp, dp, pp };
  const grid = new HyperCommGrid({
    shape: DIM_NAMES.map((dim) => shape[dim]),
    dimNames: DIM_NAMES,
    rankOffset,
    worldSize: options.worldSize ?? rankOffset + nproc,
    backend: 'plan',
  });
  return { shape, groups: groupRanks(grid, { ep }) };
}

async function asText(shape: Shape, groups: Groups, experts: boolean): Promise<string> {
  const { groupsText } = await import('./grid-text.js');
  const sizes = DIM_NAMES.map((dim) => `${dim} ${shape[dim]}`).join(', ');
  return `${sizes}\n\n${groupsText(groups, experts)}`;
}

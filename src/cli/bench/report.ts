import type { OutputFacts } from '../../outputs/line.js';
import type { Ceilings } from '../../bench/device/session.js';
import { round } from './numbers.js';
import { textRows } from './text-rows.js';
import { formatTable } from '../shared/table.js';

/** One line of a table; keys are the columns, with their units. */
export type Row = Readonly<Record<string, string | number | boolean | null>>;

export interface Table {
  /** Which of the bench. */
  readonly table: string;
  readonly title: string;
  readonly rows: readonly Row[];
}

/** What a measurement says beside what is the same for all. */
export interface Findings {
  readonly tables: readonly Table[];
  /** Sentences: how it was measured, and sums. */
  readonly notes: readonly string[];
}

/** What one measurement prints, as text or as JSON: enough to repeat it, and its findings. */
export interface BenchReport extends Findings {
  readonly bench: string;
  /** The command line, from `mbridge` on. */
  readonly command: string;
  /** ISO 8601. */
  readonly date: string;
  readonly device: string;
  readonly versions: Readonly<Record<string, string>>;
  readonly ceilings?: Ceilings;
}

/** The report as `--json` has it. */
export function jsonOf({ ceilings, ...report }: BenchReport): OutputFacts<'bench'> {
  if (ceilings === undefined) return report;
  const { copyGBs, copyBytes, gemmTflops, gemmSize } = ceilings;
  const found = { copy_gb_per_s: copyGBs, copy_bytes: copyBytes };
  return { ...report, ceilings: { ...found, product_tflop_per_s: gemmTflops, product_size: gemmSize } };
}

/** The report for people. */
export function formatBench(report: BenchReport): string {
  const { ceilings } = report;
  const versions = Object.entries(report.versions).map(([name, version]) => `${name} ${version}`);
  return [
    report.command,
    `${report.date}, ${report.device}; ${versions.join(', ')}`,
    ...(ceilings === undefined ? [] : [formatCeilings(ceilings)]),
    ...report.tables.flatMap(({ title, rows }) => {
      return ['', title, formatTable(textRows(rows)).trimEnd()];
    }),
    ...(report.notes.length === 0 ? [] : ['', ...report.notes]),
    '',
  ].join('\n');
}

function formatCeilings({ copyGBs, copyBytes, gemmTflops, gemmSize }: Ceilings): string {
  const copy = `copy of ${copyBytes / 2 ** 20} MiB ${round(copyGBs)} GB/s read and written`;
  return `this device: ${copy}; product of ${gemmSize}^3 ${round(gemmTflops)} TFLOP/s`;
}

import type { Device } from '../engine/device.js';
import type { Ceilings, Row } from './session.js';
import { round } from './session.js';

/** What one measurement prints: enough to repeat it, and its table. */
export interface BenchReport {
  readonly bench: string;
  /** The command line, from `mbridge` on. */
  readonly command: string;
  /** ISO 8601. */
  readonly date: string;
  readonly device: string;
  readonly versions: Readonly<Record<string, string>>;
  readonly ceilings?: Ceilings;
  readonly tables: readonly { readonly title: string; readonly rows: readonly Row[] }[];
  /** Sentences: how it was measured, and sums. */
  readonly notes: readonly string[];
}

interface Described {
  readonly runtime?: string;
  readonly driver?: { readonly supports: string | null };
  readonly libraries?: Readonly<Record<string, { readonly name: string; readonly version: string | null }>>;
  readonly kernels?: string;
}

/** Versions of everything that decides speed, as the backend describes itself. */
export function versionsOf(device: Device, mbridge: string): Record<string, string> {
  const described = JSON.parse(device.binding.describe(device.kind)) as Described;
  const libraries = Object.values(described.libraries ?? {}).map(({ name, version }) => [name, version ?? 'missing']);
  return {
    mbridge,
    'Node.js': process.versions.node,
    ...(described.runtime === undefined ? {} : { CUDA: described.runtime }),
    ...(described.driver?.supports == null ? {} : { 'driver for CUDA': described.driver.supports }),
    ...(described.kernels === undefined ? {} : { kernels: described.kernels }),
    ...(Object.fromEntries(libraries) as Record<string, string>),
  };
}

/** The report for people; `table` lays out rows, the first of them the head. */
export function formatBench(report: BenchReport, table: (rows: (string | number)[][]) => string): string {
  const { ceilings } = report;
  const versions = Object.entries(report.versions).map(([name, version]) => `${name} ${version}`);
  return [
    report.command,
    `${report.date}, ${report.device}; ${versions.join(', ')}`,
    ...(ceilings === undefined ? [] : [formatCeilings(ceilings)]),
    ...report.tables.flatMap(({ title, rows }) => {
      const columns = Object.keys(rows[0] ?? {});
      return ['', title, table([columns, ...rows.map((row) => columns.map((column) => row[column] ?? ''))]).trimEnd()];
    }),
    ...(report.notes.length === 0 ? [] : ['', ...report.notes]),
    '',
  ].join('\n');
}

function formatCeilings({ copyGBs, copyBytes, gemmTflops, gemmSize }: Ceilings): string {
  const copy = `copy of ${copyBytes / 2 ** 20} MiB ${round(copyGBs)} GB/s read and written`;
  return `this device: ${copy}; product of ${gemmSize}^3 ${round(gemmTflops)} TFLOP/s`;
}

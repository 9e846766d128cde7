import { round } from './numbers.js';
import type { Row } from './report.js';

/** How people read the unit that a key ends with. */
const UNITS: readonly (readonly [ending: string, text: string])[] = [
  ['tokens_per_s_per_device', 'tokens/s/device'],
  ['tflop_per_s_per_device', 'TFLOP/s/device'],
  ['tflop_per_s', 'TFLOP/s'],
  ['gb_per_s', 'GB/s'],
  ['tokens_per_s', 'tokens/s'],
  ['percent', '%'],
];

/** Rows as cells under a head. The range of a time is one column, and bytes are in the unit that suits the column. */
export function textRows(rows: readonly Row[]): (string | number)[][] {
  const keys = [...new Set(rows.flatMap((row) => Object.keys(row)))].filter((key) => key !== 'max_ms');
  const columns = keys.map((key) => columnOf(key, rows));
  return [columns.map(({ head }) => head), ...rows.map((row) => columns.map(({ cell }) => cell(row)))];
}

interface Column {
  readonly head: string;
  readonly cell: (row: Row) => string | number;
}

function columnOf(key: string, rows: readonly Row[]): Column {
  if (key === 'min_ms') return { head: 'range', cell: (row) => `${row['min_ms']}-${row['max_ms']}` };
  if (key.endsWith('_bytes')) {
    const values = rows.map((row) => row[key]).filter((value) => typeof value === 'number');
    const most = Math.max(...values, 0);
    const [unit, size] = most >= 2 ** 30 ? ['GiB', 2 ** 30] : most >= 2 ** 20 ? ['MiB', 2 ** 20] : ['KiB', 2 ** 10];
    const name = key.replace(/_bytes$/, '').replaceAll('_', ' ');
    return {
      head: `${name} ${unit}`,
      cell: ({ [key]: value }) => (typeof value === 'number' ? round(value / size) : ''),
    };
  }
  const [ending, text] = UNITS.find(([end]) => key.endsWith(end)) ?? ['', ''];
  const head = [
    key
      .slice(0, key.length - ending.length)
      .replaceAll('_', ' ')
      .trim(),
    text,
  ]
    .join(' ')
    .trim();
  return { head, cell: ({ [key]: value }) => cellOf(value) };
}

function cellOf(value: Row[string] | undefined): string | number {
  if (typeof value === 'boolean') return value ? 'yes' : 'no';
  return value ?? '';
}

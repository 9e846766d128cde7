import { expect, test } from 'vitest';
import { formatTable } from '../../src/cli/shared/table.js';

test.each([
  [
    'numbers to the right',
    [
      ['a', 'b'],
      ['x', 5],
      ['yy', 1234],
    ],
    'a       b\nx       5\nyy  1,234\n',
  ],
  ['a row that is short', [['a', 'b'], ['x']], 'a  b\nx\n'],
  ['nothing', [], '\n'],
])('%s', (_, rows, text) => {
  expect(formatTable(rows)).toBe(text);
});

test('as many rows as there may be ranks', () => {
  const rows = Array.from({ length: 200_000 }, (_, rank) => [rank]);
  expect(formatTable([['rank'], ...rows]).split('\n')).toHaveLength(200_002);
});

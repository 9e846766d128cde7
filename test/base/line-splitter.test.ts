import { expect, it } from 'vitest';
import { LineSplitter } from '../../src/base/line-splitter.js';

const EURO = Buffer.from('€');
const CASES: [name: string, chunks: (string | Buffer)[], lines: string[]][] = [
  ['nothing', [], []],
  ['whole lines', ['a\nb\n'], ['a', 'b']],
  ['a line in pieces', ['a', 'b', '\nc\n'], ['ab', 'c']],
  ['an unfinished last line', ['a\nb'], ['a', 'b']],
  ['empty lines', ['\n\na\n'], ['', '', 'a']],
  ['carriage returns', ['a\r\nb\r\n'], ['a', 'b']],
  ['a character in pieces', [EURO.subarray(0, 2), EURO.subarray(2), '\n'], ['€']],
  ['a character that never ends', ['a', EURO.subarray(0, 2)], ['a\ufffd']],
  ['a long line, at once', ['123456789012\n'], ['12345', '67890', '12']],
  ['a long line, in pieces', ['1234', '567890', '12\n'], ['12345', '67890', '12']],
];
it.each(CASES)('%s', (_, chunks, expected) => {
  const lines: string[] = [];
  const splitter = new LineSplitter((line) => lines.push(line), 5);
  for (const chunk of chunks) splitter.push(Buffer.from(chunk));
  splitter.end();
  expect(lines).toEqual(expected);
});

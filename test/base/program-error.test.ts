import { join } from 'node:path';
import { expect, test } from 'vitest';
import { packageRoot } from '../../src/base/package-root.js';
import { thrownByProgram } from '../../src/base/program-error.js';

const ours = join(packageRoot(), 'dist/src/train/train.js');
const mapped = join(packageRoot(), 'src/train/train.ts');
const example = join(packageRoot(), 'examples/own-data/x.ts');

test.each<[string, string[], string | undefined]>([
  [
    'of the program',
    ['at onStep (file:///home/u/train.js:7:9)', `at loop (file://${ours}:90:1)`],
    '/home/u/train.js:7',
  ],
  ['a module loaded twice', ['at file:///home/u/train.js?worker:7:9'], '/home/u/train.js:7'],
  ['of ours', [`at loop (file://${ours}:90:1)`, 'at main (file:///home/u/train.js:7:9)'], undefined],
  ['of ours, as a source map names it', [`at loop (${mapped}:90:1)`], undefined],
  ['an example', [`at loop (${example}:9:1)`], `${example}:9`],
  [
    'a package that the program calls',
    ['at parse (/home/u/node_modules/zod/a.js:1:1)', 'at async /home/u/a.ts:3:1'],
    '/home/u/a.ts:3',
  ],
  [
    'a package that we call',
    ['at parse (/home/u/node_modules/zod/a.js:1:1)', `at load (file://${ours}:9:1)`],
    undefined,
  ],
  [
    'Node.js alone',
    ['at node:internal/timers:5:1', 'at process.x (node:events:3:1)', 'at new Promise (<anonymous>)'],
    undefined,
  ],
])('whose fault it is: %s', (_, frames, place) => {
  const error = new Error('bad (/home/u/other.js:1:1)');
  error.stack = ['Error: bad (/home/u/other.js:1:1)', ...frames.map((frame) => `    ${frame}`)].join('\n');
  expect(thrownByProgram(error)).toBe(place);
});

test('what is no error has no place', () => {
  expect(thrownByProgram('bad')).toBeUndefined();
});

import { expect, test } from 'vitest';
import { tokenizeChoices } from '../../src/data/tokenize-choices.js';
import type { Tokenizer } from '../../src/data/tokenizer.js';
import { mbridgeError, tempFile } from './helpers.js';

/** A token for each of these pieces, the longest first: joining two texts may join their pieces. */
const PIECES = ['ab', ' c', 'a', 'b', 'c', ' '];
const END = PIECES.length;

const tokenizer: Tokenizer = {
  name: 'pieces',
  identity: 'pieces',
  vocabSize: END + 1,
  endOfDocument: END,
  encode: (text) => {
    const found = text.match(/ab| c|a|b|c| /g) ?? [];
    return Int32Array.from(found, (piece) => PIECES.indexOf(piece));
  },
  count: (text) => tokenizer.encode(text).length,
  decode: () => '',
};

test.each([
  { name: 'a text after another', context: 'a', choice: 'c', delimiter: '', ids: ['a', 'c'], before: 1 },
  { name: 'a delimiter joins the choice', context: 'a', choice: 'c', delimiter: ' ', ids: ['a', ' c'], before: 1 },
  {
    name: 'spaces of the context belong to the choice',
    context: 'a ',
    choice: 'c',
    delimiter: '',
    ids: ['a', ' c'],
    before: 1,
  },
  {
    name: 'tokens are those of the whole',
    context: 'ca',
    choice: 'bb',
    delimiter: '',
    ids: ['c', 'ab', 'b'],
    before: 2,
  },
  { name: 'no context', context: '', choice: 'ab', delimiter: '', ids: ['end', 'ab'], before: 1 },
  { name: 'spaces alone', context: ' ', choice: 'c', delimiter: '', ids: ['end', ' c'], before: 1 },
])('$name', ({ context, choice, delimiter, ids, before }) => {
  const path = tempFile('q.jsonl', JSON.stringify({ context, choices: ['cc', choice], answer: 1 }));
  const rows = [...tokenizeChoices(path, { tokenizer, delimiter, longest: 8 })];
  expect(rows).toHaveLength(2);
  expect(rows[1]).toEqual({
    ids: ids.map((piece) => (piece === 'end' ? END : PIECES.indexOf(piece))),
    context: before,
    bytes: choice.length,
    question: 1,
    isAnswer: true,
  });
});

test('a choice whose text only changes the last token of the context is refused', async () => {
  const path = tempFile('q.jsonl', JSON.stringify({ context: 'a', choices: ['c', 'b'], answer: 1 }));
  const error = await mbridgeError(() => [...tokenizeChoices(path, { tokenizer, delimiter: '', longest: 8 })]);
  expect(error.message).toBe(`${path}:1: choice 1 is no token of its own after its context`);
});

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { TextStream } from '../../src/data/tokenizer/text-stream.js';
import { byteTokenizer } from '../../src/data/tokenizer.js';
import { CHATML } from '../data/prepare/corpus.js';
import { loadFixture } from '../helpers/fixture.js';
import { temporaryFolder } from '../job/launch/processes.js';
import { mbridge } from './mbridge.js';

const MODEL = loadFixture('qwen3-tied').folder;

interface Generation {
  readonly type: string;
  readonly prompt: number;
  readonly text: string;
  readonly tokens: number[];
  readonly logprobs: number[];
  readonly stop: string;
  readonly tokens_per_s: number;
}

function run(...args: string[]): ReturnType<typeof mbridge> {
  return mbridge(['generate', MODEL, '--device', 'cpu', '--log-dir', join(temporaryFolder(), 'run'), ...args]);
}

const generations = (stdout: string): Generation[] =>
  stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Generation)
    .filter(({ type }) => type === 'generation');

test('prompts of a file are continued on several replicas, an object each, the same as alone', async () => {
  const folder = temporaryFolder();
  const file = join(folder, 'prompts.txt');
  writeFileSync(file, 'ab\nlonger than that\nc\n');
  const common = ['--tokenizer', 'byte', '--max-tokens', '12', '--seed', '3', '--json'];
  const { exitCode, stdout, stderr } = await run('--prompts', file, '--nproc', '2', ...common);
  expect(exitCode, stderr).toBe(0);
  const all = generations(stdout).sort((a, b) => a.prompt - b.prompt);
  expect(all.map(({ prompt, tokens, logprobs }) => [prompt, tokens.length, logprobs.length])).toEqual(
    [0, 1, 2].map((prompt) => [prompt, 12, 12]),
  );
  for (const { tokens, text, stop, tokens_per_s: rate } of all) {
    expect(text).toBe(byteTokenizer().decode(tokens));
    expect(stop).toBe('length');
    expect(rate).toBeGreaterThan(0);
  }
  const alone = await run('--prompt', 'ab', ...common);
  expect(generations(alone.stdout)[0]).toMatchObject({ tokens: all[0]!.tokens, logprobs: all[0]!.logprobs });
  const plain = await run('--prompts', file, '--tokenizer', 'byte', '--max-tokens', '12', '--seed', '3');
  expect(`${plain.stdout}\n`).toBe(all.map(({ text }, i) => `--- ${i + 1}\n${text}\n`).join(''));
});

test("a question is asked by the tokenizer's chat template, and a stop token ends the answer", async () => {
  const ask = [
    '--chat',
    '--prompt',
    'Hi',
    '--tokenizer',
    CHATML,
    '--json',
    '--max-tokens',
    '400',
    '--temperature',
    '3',
  ];
  const { exitCode, stdout, stderr } = await run(...ask);
  expect(exitCode, stderr).toBe(0);
  const [answer] = generations(stdout);
  expect(answer!.stop).toBe('stop');
  expect(answer!.tokens.length).toBeLessThan(400);
  expect(answer!.text).not.toContain('<|im_end|>');
  const plain = await run(...ask.filter((arg) => arg !== '--chat'));
  expect(generations(plain.stdout)[0]!.tokens).not.toEqual(answer!.tokens);
});

test('a text in pieces has no half characters, and is the whole text', () => {
  const stream = new TextStream(byteTokenizer());
  const text = 'naïve — 漢字 😀!';
  const pieces = [...Buffer.from(text)].map((byte) => stream.push(byte));
  expect([...pieces, stream.end()].join('')).toBe(text);
  expect(pieces.join('')).not.toContain('\uFFFD');
  const cut = new TextStream(byteTokenizer());
  expect([...Buffer.from('é').subarray(0, 1)].map((byte) => cut.push(byte))).toEqual(['']);
  expect(cut.end()).toBe('\uFFFD');
});

const REFUSED: [args: string[], exitCode: number, code: string][] = [
  [['--prompt', 'a', '--top-p', '1.5'], 3, 'MB_GENERATE_OPTIONS'],
  [['--prompt', 'a'.repeat(600), '--tokenizer', 'byte'], 3, 'MB_GENERATE_PROMPT'],
  [['--prompt', 'a', '--chat', '--tokenizer', 'byte'], 7, 'MB_CHAT_TEMPLATE'],
  [['--prompt', 'a', '--temperature', '-1'], 3, 'MB_GENERATE_OPTIONS'],
  [['--prompt', 'a', '--tokenizer', '/nowhere'], 7, 'MB_TOKENIZER_FILE'],
  [['--prompt', 'a', '--tokenizer', 'byte', '--nproc', '2', '--cp-size', '2'], 3, 'MB_GENERATE_CP'],
  [['model.seq_length=64'], 2, 'MB_USAGE'],
];

test.each(process.env['MBRIDGE_TEST_FULL'] === undefined ? REFUSED.slice(0, 3) : REFUSED)(
  '%j is refused',
  async (args, exitCode, code) => {
    const found = await run(...args);
    expect(found).toMatchObject({ exitCode });
    expect(found.stderr).toContain(code);
  },
);

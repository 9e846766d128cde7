import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { loadFixture } from '../helpers/fixture.js';
import { LAYOUT_FLAGS, temporaryFolder } from '../checkpoint/runs.js';
import { mbridge, type Outcome } from './mbridge.js';

/** What transformers found (test/oracles/score-choices.py). */
interface Expected {
  scores: number[][];
  best: number[];
  best_norm: number[];
  accuracy: number;
  accuracy_norm: number;
}

interface Question {
  type: string;
  question: number;
  scores: number[];
  best: number;
  best_norm: number;
}

const FOLDER = join(import.meta.dirname, '../../fixtures/choices');
const QUESTIONS = join(FOLDER, 'questions.jsonl');
const SCORES = JSON.parse(readFileSync(join(FOLDER, 'scores.json'), 'utf8')) as Record<string, Expected>;

function evaluate(args: readonly string[]): Promise<Outcome> {
  const log = ['--log-dir', join(temporaryFolder(), 'run')];
  return mbridge(['eval', ...args, '--device', 'cpu', '--json', ...log]);
}

async function scored(args: readonly string[]): Promise<{ questions: Question[]; result: Record<string, unknown> }> {
  const { exitCode, stdout, stderr } = await evaluate(args);
  expect(exitCode, stderr).toBe(0);
  const events = stdout.split('\n').map((line) => JSON.parse(line) as Question);
  const result = events.at(-1) as unknown as Record<string, unknown>;
  return { questions: events.filter(({ type }) => type === 'question'), result };
}

describe('log-probabilities of choices are those of transformers', () => {
  test.each<[string, 'qwen3-tied' | 'qwen3-untied', readonly string[], string?]>([
    ['one rank', 'qwen3-tied', []],
    ['another model', 'qwen3-untied', ['--nproc', '2']],
    ['tp 2', 'qwen3-tied', ['--nproc', '2', '--tp-size', '2']],
    ['pp 2', 'qwen3-tied', ['--nproc', '2', '--pp-size', '2']],
    ['pp 2, interleaved', 'qwen3-tied', LAYOUT_FLAGS['pp2 vpp2']],
    ['dp 3: more rows than there are choices', 'qwen3-tied', ['--nproc', '3', 'train.micro_batch_size=2']],
    ['tp 2, pp 2', 'qwen3-tied', LAYOUT_FLAGS['tp2 pp2']],
    ['a tokenizer', 'qwen3-tied', ['--nproc', '2'], 'tokenizer-chatml'],
    ['a tokenizer with a token before every text', 'qwen3-tied', [], 'tokenizer-bos'],
  ])('%s', async (_, name, layout, tokenizer) => {
    const { folder } = loadFixture(name);
    const expected = SCORES[tokenizer === undefined ? name : `${name}+${tokenizer}`]!;
    const path = join(FOLDER, '..', tokenizer ?? '');
    const named = tokenizer === undefined ? [] : ['tokenizer.type=huggingface', `tokenizer.path=${path}`];
    const { questions, result } = await scored([folder, '--choices', QUESTIONS, ...layout, ...named]);
    expect(questions.map(({ question }) => question)).toEqual(expected.scores.map((_row, i) => i + 1));
    questions.forEach(({ scores, best, best_norm }, i) => {
      expect(scores).toHaveLength(expected.scores[i]!.length);
      scores.forEach((score, j) => expect(Math.abs(score / expected.scores[i]![j]! - 1)).toBeLessThan(1e-6));
      expect([best, best_norm]).toEqual([expected.best[i], expected.best_norm[i]]);
    });
    const { accuracy, accuracy_norm } = expected;
    expect(result).toMatchObject({ ok: true, accuracy, accuracy_norm, questions: 6, choices: 19 });
  });
});

test('a delimiter is scored with the choice, and is none of its bytes', async () => {
  const { folder } = loadFixture('qwen3-tied');
  const file = (content: object): string => {
    const path = join(temporaryFolder(), 'q.jsonl');
    writeFileSync(path, JSON.stringify(content));
    return path;
  };
  const bare = file({ context: 'a b', choices: ['c', 'dd'], answer: 0 });
  const spaced = file({ context: 'a b', choices: [' c', ' dd'], answer: 0 });
  const [a, b] = [
    await scored([folder, '--choices', bare, '--delimiter', ' ']),
    await scored([folder, '--choices', spaced]),
  ];
  expect(a.questions[0]!.scores).toEqual(b.questions[0]!.scores);
});

describe('what cannot be scored is one error', () => {
  const good = '{"context": "a", "choices": ["b", "c"], "answer": 0}\n';
  test.each<[string, string, number, string]>([
    [
      'a context that is no text',
      `${good}\n{"context": 3, "choices": ["b", "c"], "answer": 0}`,
      7,
      'q.jsonl:3: "context" is no text',
    ],
    [
      'one choice',
      '{"context": "a", "choices": ["b"], "answer": 0}',
      7,
      'q.jsonl:1: "choices" is no list of two or more texts',
    ],
    [
      'an empty choice',
      '{"context": "a", "choices": ["b", ""], "answer": 0}',
      7,
      'q.jsonl:1: a choice is no text, or empty',
    ],
    [
      'an answer that is none',
      `${good}{"context": "a", "choices": ["b", "c"], "answer": 2}`,
      7,
      'q.jsonl:2: "answer" is 2, not the number of a choice (0 to 1)',
    ],
    [
      'a question that is too long',
      `${good}{"context": "${'a'.repeat(40)}", "choices": ["b", "cc"], "answer": 0}`,
      7,
      'q.jsonl:2: choice 1 has 42 tokens with its context, the most is 41',
    ],
    ['no question', '\n', 7, 'q.jsonl: holds no questions'],
    ['no JSON', 'a\n', 7, 'q.jsonl:1: bad JSON'],
  ])('%s', async (_, content, status, message) => {
    const path = join(temporaryFolder(), 'q.jsonl');
    writeFileSync(path, content);
    const { exitCode, stderr } = await evaluate([
      loadFixture('qwen3-tied').folder,
      '--choices',
      path,
      'model.seq_length=40',
    ]);
    expect(exitCode, stderr).toBe(status);
    expect(stderr).toContain(message);
  });

  test.each<[string, readonly string[], number, string]>([
    ['a file that is not there', ['--choices', 'nowhere.jsonl'], 7, 'cannot read data file nowhere.jsonl'],
    ['data and choices', ['--choices', QUESTIONS, '--data', QUESTIONS], 2, 'both --data and --choices'],
    ['a vocabulary without the tokens', ['--choices', QUESTIONS], 3, 'the tokenizer byte has 256 tokens'],
    [
      'too many replicas',
      ['--choices', QUESTIONS, '--nproc', '61'],
      3,
      '61 replicas of 1 stages have more than 60 rows',
    ],
  ])('%s', async (name, args, status, message) => {
    const fixture = name.startsWith('a vocabulary') ? 'llama-scaled' : 'qwen3-tied';
    const { exitCode, stderr } = await evaluate([loadFixture(fixture).folder, ...args]);
    expect(exitCode, stderr).toBe(status);
    expect(stderr).toContain(message);
  });
});

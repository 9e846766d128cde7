import { badData } from './data-error.js';
import type { ChoiceRow } from './choice-rows.js';
import { JsonlFile } from './jsonl-file.js';
import type { Tokenizer } from './tokenizer.js';

/** A line of a file of multiple-choice questions. */
interface Question {
  readonly context: string;
  readonly choices: readonly string[];
  readonly answer: number;
}

export interface TokenizeOptions {
  readonly tokenizer: Tokenizer;
  /** Stands between a context and its choice. */
  readonly delimiter: string;
  /** Most tokens of context and choice together. */
  readonly longest: number;
}

/**
 * The choices of a file of `{"context": ..., "choices": [...], "answer": index}` lines, one after the other. They are
 * tokenised as lm-evaluation-harness does it: context and choice as one text, of which the tokens after those of the
 * context alone are the choice's; spaces at the end of a context belong to the choice. In place of an empty context
 * stands the token between documents.
 * @throws MbridgeError exit 7, naming file and line, for a line that is no question or is too long
 */
export function* tokenizeChoices(path: string, options: TokenizeOptions): Generator<ChoiceRow> {
  const file = JsonlFile.open(path);
  try {
    if (file.length === 0) throw badData('MB_DATA_EMPTY', path, 'holds no questions', FORMAT);
    for (let line = 0; line < file.length; line++) yield* rowsOf(file, line, options);
  } finally {
    file.close();
  }
}

const FORMAT = 'write {"context": "...", "choices": ["...", "..."], "answer": 0} a line';

function rowsOf(file: JsonlFile, line: number, { tokenizer, delimiter, longest }: TokenizeOptions): ChoiceRow[] {
  const { context, choices, answer } = questionAt(file, line);
  return choices.map((choice, i) => {
    const kept = context.trimEnd();
    const end = context.slice(kept.length) + delimiter + choice;
    const encode = (text: string): Iterable<number> => tokenizer.encode(text, { specialTokens: false });
    const before = kept === '' ? [tokenizer.endOfDocument] : [...encode(kept)];
    const ids = kept === '' ? [...before, ...encode(end)] : [...encode(kept + end)];
    if (ids.length <= before.length) {
      throw badData('MB_CHOICES', file.where(line), `choice ${i} is no token of its own after its context`, FORMAT);
    }
    if (ids.length > longest) {
      const found = `choice ${i} has ${ids.length} tokens with its context, the most is ${longest} (model.seq_length + 1)`;
      throw badData('MB_CHOICES_LENGTH', file.where(line), found, 'raise model.seq_length, or shorten the context');
    }
    const bytes = Buffer.byteLength(choice);
    return { ids, context: before.length, bytes, question: line + 1, isAnswer: i === answer };
  });
}

function questionAt(file: JsonlFile, line: number): Question {
  const { context, choices, answer } = file.object(line);
  const bad = (found: string): Error => badData('MB_CHOICES', file.where(line), found, FORMAT);
  if (typeof context !== 'string') throw bad('"context" is no text');
  if (!Array.isArray(choices) || choices.length < 2) throw bad('"choices" is no list of two or more texts');
  if (!choices.every((choice) => typeof choice === 'string' && choice !== ''))
    throw bad('a choice is no text, or empty');
  if (!Number.isInteger(answer) || (answer as number) < 0 || (answer as number) >= choices.length) {
    throw bad(`"answer" is ${JSON.stringify(answer)}, not the number of a choice (0 to ${choices.length - 1})`);
  }
  return { context, choices: choices as string[], answer: answer as number };
}

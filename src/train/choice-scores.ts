import type { ChoiceRow } from '../data/choice-rows.js';

/** A question with what a model makes of it. */
export interface ScoredQuestion {
  /** Which of its file, from 1. */
  readonly question: number;
  /** Of each choice: log-probability of its tokens given the context, summed, in nats. */
  readonly scores: readonly number[];
  /** The choice of the highest score. */
  readonly best: number;
  /** The choice of the highest score by bytes of its text. */
  readonly best_norm: number;
  readonly answer: number;
}

/** Questions from their choices in order, each with its loss. Of equal choices the first is the best. */
export function scoreQuestions(
  rows: Iterable<Omit<ChoiceRow, 'ids' | 'context'> & { loss: number }>,
): ScoredQuestion[] {
  const questions = new Map<number, { scores: number[]; bytes: number[]; answer: number }>();
  for (const { question, loss, bytes, isAnswer } of rows) {
    const found = questions.get(question) ?? { scores: [], bytes: [], answer: -1 };
    questions.set(question, found);
    if (isAnswer) found.answer = found.scores.length;
    found.scores.push(-loss);
    found.bytes.push(bytes);
  }
  return [...questions].map(([question, { scores, bytes, answer }]) => {
    const byBytes = scores.map((score, i) => score / (bytes[i] as number));
    return { question, scores, best: largestOf(scores), best_norm: largestOf(byBytes), answer };
  });
}

/** Parts of the questions that are answered rightly, by the score and by the score a byte. */
export function accuracies(questions: readonly ScoredQuestion[]): { accuracy: number; accuracy_norm: number } {
  const part = (key: 'best' | 'best_norm'): number =>
    questions.filter((question) => question[key] === question.answer).length / questions.length;
  return { accuracy: part('best'), accuracy_norm: part('best_norm') };
}

function largestOf(values: readonly number[]): number {
  return values.reduce((best, value, i) => (value > (values[best] as number) ? i : best), 0);
}

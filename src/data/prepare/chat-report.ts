import type { DatasetConfig } from '../../config/schema.js';
import { closingOnError } from '../data-file.js';
import { conversationLengths, tooLongError } from '../indexed/chat-samples.js';
import { TokenFile } from '../indexed/token-file.js';
import { JsonlFile } from '../jsonl-file.js';

type ChatConfig = Extract<DatasetConfig, { type: 'chat' }>;

/** Tokens of each conversation in token files. @throws MbridgeError exit 7 */
export function chatLengths(prefix: string): number[] {
  const file = new TokenFile(prefix, Infinity);
  const lengths = closingOnError(file, () => conversationLengths(file));
  file.close();
  return lengths;
}

/**
 * Says how many conversations do not fit a sample, and what becomes of them.
 * @param section with the prefix of its token files as `path`
 * @param source the file that they were made of, where it is known
 * @throws MbridgeError MB_CHAT_LONG (exit 7), naming the line, where that is an error
 */
export function reportLong(
  { path: prefix, too_long: tooLong }: ChatConfig,
  { source, seqLength, warn }: { source: string | undefined; seqLength: number; warn: (text: string) => void },
): void {
  const lengths = chatLengths(prefix);
  const most = seqLength + 1;
  const long = [...lengths.keys()].filter((i) => (lengths[i] as number) > most);
  const [first] = long;
  if (first === undefined) return;
  if (tooLong === 'error') {
    throw tooLongError(source === undefined ? prefix : lineOf(source, first), lengths[first] as number, most);
  }
  const longest = long.reduce((all, i) => Math.max(all, lengths[i] as number), 0);
  const what = tooLong === 'drop' ? 'left out' : 'cut off';
  warn(
    `${source ?? prefix}: ${long.length} of ${lengths.length} conversations have more than ${most} tokens (seq_length + 1) and are ${what}; the longest has ${longest}`,
  );
}

function lineOf(path: string, index: number): string {
  const file = JsonlFile.open(path);
  try {
    return file.where(index);
  } finally {
    file.close();
  }
}

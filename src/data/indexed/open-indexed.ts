import type { DatasetConfig } from '../../config/schema.js';
import { closingOnError } from '../data-file.js';
import type { Dataset } from '../dataset.js';
import { BlendedSamples } from './blended-samples.js';
import { ChatSamples } from './chat-samples.js';
import { IndexedSamples } from './indexed-samples.js';
import type { Tail } from '../token-blocks.js';
import { readSidecar, tokenBytesOf } from './sidecar.js';
import { parseSplit, splitRange, type Split } from './split.js';
import { checkPair, TokenFile } from './token-file.js';

type ChatConfig = Extract<DatasetConfig, { type: 'chat' }>;
type IndexedConfig = Extract<DatasetConfig, { type: 'indexed' }>;

interface Source {
  readonly path: string;
  readonly weight: number;
}

/** The pairs that a configuration names. */
export function sourcesOf({ path, blend }: IndexedConfig): readonly Source[] {
  return blend ?? [{ path: path as string, weight: 1 }];
}

/** Looks at the headers of all pairs. @throws MbridgeError exit 7 */
export function checkIndexed(config: IndexedConfig): void {
  for (const { path } of sourcesOf(config)) checkPair(path);
}

/** @throws MbridgeError exit 7 for what is wrong with a pair, or a split that holds no sample */
export function openIndexed(
  config: IndexedConfig,
  options: { split: Split; tail: Tail; vocabSize: number; seqLength: number; documents: boolean },
): Dataset {
  const { split, vocabSize, ...sizes } = options;
  const parts = parseSplit(config.split);
  const seed = config.shuffle ? config.seed : undefined;
  const opened: IndexedSamples[] = [];
  const all = { close: () => opened.forEach((source) => source.close()) };
  return closingOnError(all, () => {
    const sources = sourcesOf(config);
    for (const { path } of sources) {
      const file = new TokenFile(path, vocabSize);
      opened.push(
        closingOnError(file, () => {
          const range = splitRange(parts, file.documents, split);
          const tokenBytes = tokenBytesOf(readSidecar(path));
          return new IndexedSamples(file, { split, range, seed, tokenBytes, ...sizes });
        }),
      );
    }
    const [only] = opened;
    return opened.length === 1 && only !== undefined
      ? only
      : new BlendedSamples(
          opened,
          sources.map(({ weight }) => weight),
        );
  });
}

/**
 * Opens the token files of conversations: where a launcher starts the run, it has made them and put their prefix into the
 * configuration.
 * @throws MbridgeError exit 7 for what is wrong with the pair
 */
export function openChat(
  { path, too_long: tooLong, packing }: ChatConfig,
  { vocabSize, seqLength }: { vocabSize: number; seqLength: number },
): Dataset {
  const file = new TokenFile(path, vocabSize);
  return closingOnError(file, () => {
    return new ChatSamples(file, { seqLength, tooLong, packing, tokenBytes: tokenBytesOf(readSidecar(path)) });
  });
}

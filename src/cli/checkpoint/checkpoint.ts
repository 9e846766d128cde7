import { constants } from 'node:os';
import { InvalidArgumentError, type Command } from 'commander';
import { MbridgeError } from '../../base/errors.js';
import type { Checkpoint } from '../../checkpoint/format/checkpoint.js';
import { outputLine, type OutputFacts } from '../../outputs/line.js';
import { megabytes, rootText, summaryText } from './text.js';
import { parseBytes, parseCount } from '../shared/run-options.js';

interface Json {
  readonly json?: boolean;
}

/** `mbridge checkpoint`: what can be done with checkpoints without training. Each works in one process, on the CPU. */
export function addCheckpoint(program: Command): void {
  const checkpoint = program.command('checkpoint').description('inspect, check, convert and remove checkpoints');
  addInspect(checkpoint);
  addVerify(checkpoint);
  addReshard(checkpoint);
  addPrune(checkpoint);
  addImport(checkpoint);
  addExport(checkpoint);
}

const CHECKPOINT = 'a checkpoint, or a folder of checkpoints (then the one that `latest` names)';

function addInspect(parent: Command): void {
  parent
    .command('inspect')
    .description('print what a checkpoint, or a folder of checkpoints, holds')
    .argument('<folder>', 'a checkpoint, or a folder of checkpoints')
    .option('--tensors', 'list every tensor')
    .option('--json', 'as JSON')
    .action(async (folder: string, options: Json & { tensors?: boolean }) => {
      const { inspect } = await import('../../checkpoint/run/inspect.js');
      const found = await inspect(folder, options.tensors ?? false);
      if ('checkpoints' in found) {
        process.stdout.write(options.json ? outputLine('checkpoints', found) : rootText(found));
        return;
      }
      const { originOf } = await import('./origin.js');
      const whole = { ...found, ...originOf(found.folder, found.state.step) };
      process.stdout.write(options.json ? outputLine('checkpoint', whole) : summaryText(whole));
    });
}

function addVerify(parent: Command): void {
  parent
    .command('verify')
    .description('read every byte of a checkpoint against its checksums, and check that every tensor is whole')
    .argument('<folder>', CHECKPOINT)
    .option('--json', 'as JSON')
    .action(async (folder: string, options: Json) => {
      await withCheckpoint(folder, async (checkpoint) => {
        let [files, bytes] = [0, 0];
        await checkpoint.verifyFiles((_, size) => {
          files++;
          bytes += size;
        });
        const tensors = Object.keys(checkpoint.index.tensors).length;
        const result = { ok: true, folder: checkpoint.folder, files, bytes, tensors } as const;
        report(options, result, `${checkpoint.folder}: ${files} files, ${megabytes(bytes)}, ${tensors} tensors: sound`);
      });
    });
}

function addReshard(parent: Command): void {
  parent
    .command('reshard')
    .description('write a checkpoint again as a run of another layout would have (any layout loads any checkpoint)')
    .argument('<source>', CHECKPOINT)
    .argument('<target>', 'folder of checkpoints to write it in')
    .option('--tp-size <n>', 'tensor-parallel ranks', parseCount, 1)
    .option('--pp-size <n>', 'pipeline stages', parseCount, 1)
    .option('--vp-size <n>', 'chunks a stage', parseCount, 1)
    .option('--dp-size <n>', 'replicas', parseCount, 1)
    .option('--json', 'as JSON')
    .action(
      async (
        source: string,
        target: string,
        options: Json & Record<'tpSize' | 'ppSize' | 'vpSize' | 'dpSize', number>,
      ) => {
        const { reshard } = await import('../../checkpoint/run/reshard.js');
        const { tpSize: tp, ppSize: pp, vpSize: vpp, dpSize: dp } = options;
        await withCheckpoint(source, async (checkpoint) => {
          endOnSignals();
          const folder = await reshard(checkpoint, target, { tp, pp, vpp, dp });
          report(options, { ok: true, folder }, folder);
        });
      },
    );
}

function addPrune(parent: Command): void {
  parent
    .command('prune')
    .description('remove old checkpoints and what unfinished saves left; refused while a run saves there')
    .argument('<folder>', 'folder of checkpoints')
    .requiredOption('--keep-last <n>', 'newest ones to keep', parseCount)
    .option('--keep-every <n>', 'also keep those whose update is a multiple of this', parseCount)
    .option('--dry-run', 'only say what would go')
    .option('--json', 'as JSON')
    .action(async (root: string, options: Json & { keepLast: number; keepEvery?: number; dryRun?: boolean }) => {
      const { pruneClaimed } = await import('../../checkpoint/run/prune.js');
      const retention = { keepLast: options.keepLast, keepEvery: options.keepEvery ?? null };
      endOnSignals();
      const { removed, kept } = await pruneClaimed(root, retention, {
        dryRun: options.dryRun ?? false,
        leftovers: true,
      });
      const lines = removed.map((name) => `${options.dryRun ? 'would remove' : 'removed'} ${name}`);
      report(
        options,
        { ok: true, removed, kept, dry_run: options.dryRun ?? false },
        [...lines, `${kept.length} stay`].join('\n'),
      );
    });
}

function addImport(parent: Command): void {
  parent
    .command('import')
    .description('make a checkpoint out of a Hugging Face folder, for checkpoint.pretrained_checkpoint')
    .argument('<hf>', 'folder with config.json and safetensors')
    .argument('<target>', 'folder of checkpoints to write it in')
    .option('--json', 'as JSON')
    .action(async (hf: string, target: string, options: Json) => {
      const { importHf } = await import('../../checkpoint/run/hf-import.js');
      endOnSignals();
      const folder = await importHf(hf, target);
      report(options, { ok: true, folder }, folder);
    });
}

function addExport(parent: Command): void {
  parent
    .command('export')
    .description("write a checkpoint's weights as a Hugging Face folder; adapters are merged into them")
    .argument('<source>', CHECKPOINT)
    .argument('<hf>', 'folder to make')
    .option('--dtype <dtype>', 'bf16 or fp32; default: bf16 after bf16_mixed training, else as stored', parseDtype)
    .option('--hf-path <folder>', 'where to take config.json and the tokenizer from, if the checkpoint does not know')
    .option('--adapter', 'the adapters alone (peft.type=lora), as a folder that peft reads')
    .option('--max-shard-bytes <n>', 'size from which on weights go to another file; default 5e9', parseBytes)
    .option('--json', 'as JSON')
    .action(async (source: string, hf: string, options: Json & ExportFlags) => {
      const { exportHf } = await import('../../checkpoint/hf/hf-export.js');
      await withCheckpoint(source, async (checkpoint) => {
        const { dtype, hfPath, maxShardBytes, adapter = false } = options;
        if (adapter) return writeAdapter(checkpoint, hf, options);
        const sized = maxShardBytes === undefined ? {} : { shardBytes: maxShardBytes };
        endOnSignals();
        const result = await exportHf(checkpoint, hf, { dtype, hfPath, ...sized });
        if (result.companions === null) {
          process.stderr.write(
            'config.json was made from the model sizes, and there is no tokenizer; --hf-path names both\n',
          );
        }
        const text = `${hf}: ${result.tensors} tensors, ${megabytes(result.bytes)}`;
        report(options, { ok: true, folder: hf, ...result }, text);
      });
    });
}

async function writeAdapter(checkpoint: Checkpoint, target: string, options: Json & ExportFlags): Promise<void> {
  const { dtype, maxShardBytes, hfPath } = options;
  if (dtype !== undefined || maxShardBytes !== undefined) {
    throw new MbridgeError('usage', 'MB_USAGE', '--dtype or --max-shard-bytes beside --adapter', {
      hint: 'leave them out: adapters are one file, of float32',
    });
  }
  const { exportAdapter } = await import('../../checkpoint/hf/adapter-export.js');
  endOnSignals();
  const result = await exportAdapter(checkpoint, target, hfPath);
  const text = `${target}: ${result.tensors} tensors, ${megabytes(result.bytes)}`;
  report(options, { ok: true, folder: target, ...result }, text);
}

interface ExportFlags {
  readonly adapter?: boolean;
  readonly dtype?: 'bf16' | 'fp32';
  readonly hfPath?: string;
  readonly maxShardBytes?: number;
}

async function withCheckpoint(path: string, use: (checkpoint: Checkpoint) => Promise<void>): Promise<void> {
  const { requireCheckpoint } = await import('../../checkpoint/format/checkpoint-root.js');
  const { Checkpoint: Opened } = await import('../../checkpoint/format/checkpoint.js');
  const checkpoint = await Opened.open(await requireCheckpoint(path, warn));
  try {
    await use(checkpoint);
  } finally {
    await checkpoint.close();
  }
}

/** A signal ends the process in order: what it has begun to write goes, and its claim on the folder too. */
function endOnSignals(): void {
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.once(signal, () => process.exit(128 + constants.signals[signal]));
  }
}

function warn(text: string): void {
  process.stderr.write(`warning: ${text}\n`);
}

function report({ json }: Json, result: OutputFacts<'result'>, text: string): void {
  process.stdout.write(json ? outputLine('result', result) : `${text}\n`);
}

function parseDtype(text: string): 'bf16' | 'fp32' {
  if (text === 'bf16' || text === 'fp32') return text;
  throw new InvalidArgumentError('Expected bf16 or fp32.');
}

import type { CommanderError } from 'commander';
import { MbridgeError } from '../../base/errors.js';
import { nearest } from '../../base/nearest.js';

/** Commands as other programs call them. */
const OTHER_NAMES: Readonly<Record<string, string>> = {
  train: 'pretrain',
  sft: 'finetune',
  chat: 'generate --chat',
  sample: 'generate',
  evaluate: 'eval',
  continue: 'resume',
  export: 'checkpoint export',
  import: 'checkpoint import',
  prepare: 'data prepare',
  tokenize: 'data prepare',
};

/** Flags as other programs call them: ours, what to set, or why there is none. */
const OTHER_FLAGS: Readonly<Record<string, string>> = {
  'tensor-parallel-size': '--tp-size',
  'tensor-model-parallel-size': '--tp-size',
  'pipeline-parallel-size': '--pp-size',
  'pipeline-model-parallel-size': '--pp-size',
  'context-parallel-size': '--cp-size',
  gpus: '--nproc',
  'num-gpus': '--nproc',
  'nproc-per-node': '--nproc',
  'num-processes': '--nproc',
  'master-addr': '--rdzv-endpoint HOST:PORT',
  steps: 'train.train_iters=N',
  'max-steps': 'train.train_iters=N',
  'batch-size': 'train.global_batch_size=N',
  'learning-rate': 'optimizer.lr=X',
  data: 'dataset.path=FILE',
  dataset: 'dataset.path=FILE',
  output: '--log-dir',
  'output-dir': '--log-dir',
  save: 'checkpoint.save=DIR',
};
const RUN_COMMANDS: readonly string[] = ['pretrain', 'resume', 'plan', 'show-config', 'bench'];
const DATA_PARALLEL = ': data parallelism is what the other sizes leave of --nproc';

/** Commander's finding as a usage error (exit code 2). */
export async function usageError({ code, message }: CommanderError): Promise<MbridgeError> {
  // Help that commander shows because no command was given comes as this code, already printed.
  const text =
    code === 'commander.help'
      ? 'no command given'
      : message
          .replace(/^error: /, '')
          .replaceAll('\n', ' ')
          .replace('(Did you', '(did you');
  const near = /\(did you mean (?:one of )?(.+?)\?\)/.exec(text)?.[1]?.split(', ') ?? [];
  const own = await meant(code, /'(.+?)'/.exec(text)?.[1] ?? '', near);
  // Commander knows spellings, we know meanings.
  const said = own === '' ? text : text.replace(/ \(did you.*$/, '');
  return new MbridgeError('usage', 'MB_USAGE', `${said}${own}`, {
    hint: 'mbridge --help, mbridge <command> --help',
  });
}

/** The command that others call so, or the key of the configuration that others have a flag for. */
async function meant(code: string, name: string, near: readonly string[]): Promise<string> {
  if (code === 'commander.unknownCommand') {
    // A name of ours that is as near is commander's to find.
    const known = nearest(name, [...near, ...Object.keys(OTHER_NAMES)]) ?? '';
    const ours = near.includes(known) ? undefined : OTHER_NAMES[known];
    return ours === undefined ? '' : ` (did you mean ${ours}?)`;
  }
  if (code !== 'commander.unknownOption') return '';
  const flag = name.replace(/^-+/, '').replace(/=.*$/, '').replaceAll('_', '-');
  if (['dp', 'dp-size', 'data-parallel-size'].includes(flag)) return DATA_PARALLEL;
  const takesRun = RUN_COMMANDS.includes(process.argv[2] ?? '');
  const ours = takesRun && Object.hasOwn(OTHER_FLAGS, flag) ? OTHER_FLAGS[flag] : undefined;
  if (ours !== undefined) return ` (did you mean ${ours}?)`;
  if (near.length > 0) return '';
  const { configJsonSchema, sectionKeys } = await import('../../config/json-schema.js');
  const key = name.replace(/^-+/, '').replace(/=.*$/, '').replaceAll('-', '_');
  const owners = Object.entries(configJsonSchema().properties ?? {}).filter(([, section]) =>
    Object.hasOwn(sectionKeys(section), key),
  );
  const [owner] = owners;
  return owner === undefined ? '' : ` (did you mean ${owner[0]}.${key}=VALUE?)`;
}

import type { CommanderError } from 'commander';
import { MbridgeError } from '../../base/errors.js';

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
  const suggestion = text.includes('(did you') ? '' : await meant(code, /'(.+?)'/.exec(text)?.[1] ?? '');
  return new MbridgeError('usage', 'MB_USAGE', `${text}${suggestion}`, {
    hint: 'mbridge --help, mbridge <command> --help',
  });
}

/** The command that others call so, or the key of the configuration that others have a flag for. */
async function meant(code: string, name: string): Promise<string> {
  if (code === 'commander.unknownCommand') {
    const ours = Object.hasOwn(OTHER_NAMES, name) ? OTHER_NAMES[name] : undefined;
    return ours === undefined ? '' : ` (did you mean ${ours}?)`;
  }
  if (code !== 'commander.unknownOption') return '';
  const { configJsonSchema, sectionKeys } = await import('../../config/json-schema.js');
  const key = name.replace(/^-+/, '').replace(/=.*$/, '').replaceAll('-', '_');
  const owners = Object.entries(configJsonSchema().properties ?? {}).filter(([, section]) =>
    Object.hasOwn(sectionKeys(section), key),
  );
  const [owner] = owners;
  return owner === undefined ? '' : ` (did you mean ${owner[0]}.${key}=VALUE?)`;
}

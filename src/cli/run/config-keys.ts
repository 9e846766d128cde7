import type { Command } from 'commander';
import { outputLine } from '../../outputs/line.js';
import type { ListedKey } from './listed-keys.js';

const EXAMPLES = `
Examples:
  mbridge config keys                   every section with its keys
  mbridge config keys optimizer         what each key of a section takes, its default, what it does
  mbridge config keys optimizer.lr      of one key
  mbridge config keys --json`;

/** `mbridge config`: what can be set. */
export function addConfig(program: Command): void {
  const config = program.command('config').description('what a configuration can set');
  config
    .command('keys')
    .description('list the keys, by section')
    .argument('[section]', 'a section, such as optimizer, or one of its keys')
    .option('--json', 'as JSON')
    .addHelpText('after', EXAMPLES)
    .action(async (asked: string | undefined, { json }: { json?: boolean }) => {
      const { listKeys } = await import('./listed-keys.js');
      const keys = await listKeys(asked);
      process.stdout.write(
        json ? outputLine('config_keys', { keys }) : asked === undefined ? overview(keys) : details(keys),
      );
    });
}

/** The names alone, a paragraph a section. */
function overview(keys: readonly ListedKey[]): string {
  const sections = new Map<string, string[]>();
  for (const { key } of keys) {
    const [section = '', name] = key.split('.');
    sections.set(section, [...(sections.get(section) ?? []), ...(name === undefined ? [] : [name])]);
  }
  const text = [...sections].map(([section, names]) => `${section}\n${wrap(names.join(', '), '  ')}`);
  return `${text.join('\n')}\n\nmbridge config keys <section> says what each takes\n`;
}

function details(keys: readonly ListedKey[]): string {
  const text = keys.map(({ key, types = [], takes, default: preset, description }) => {
    const facts = [takes, ...(preset === null ? [] : [`default ${JSON.stringify(preset)}`])].join('; ');
    const only = types.length === 0 || key.endsWith('.type') ? '' : ` (type ${types.join(', ')})`;
    return `${key}\n${wrap(`${description}${only}`, '  ')}\n${wrap(facts, '  ')}`;
  });
  return `${text.join('\n')}\n`;
}

const WIDTH = 80;

function wrap(text: string, indent: string): string {
  const lines: string[] = [];
  for (const word of text.split(' ')) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + 1 + word.length <= WIDTH) lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(`${indent}${word}`);
  }
  return lines.join('\n');
}

import type { Command } from 'commander';
import type { JsonSchema } from '../../config/json-schema.js';
import { outputLine } from '../../outputs/line.js';

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
      const keys = await listKeys(asked);
      process.stdout.write(
        json ? outputLine('config_keys', { keys }) : asked === undefined ? overview(keys) : details(keys),
      );
    });
}

/** A key as it is listed. */
interface ListedKey {
  /** `section.key` */
  readonly key: string;
  /** Types of the section that have it, where it has several. */
  readonly types?: readonly string[];
  readonly takes: string;
  /** All that it takes, where these are few. */
  readonly values?: readonly unknown[];
  readonly default: unknown;
  readonly description: string;
}

async function listKeys(asked: string | undefined): Promise<ListedKey[]> {
  const { choicesOf, configJsonSchema, expectation } = await import('../../config/json-schema.js');
  const sections = Object.entries(configJsonSchema().properties ?? {});
  const all = sections.flatMap(([section, schema]): ListedKey[] => {
    const listed = (key: string, of: JsonSchema, types?: readonly string[]): ListedKey => {
      const choices = choicesOf(of);
      return {
        key,
        ...(types === undefined ? {} : { types }),
        takes: expectation(of),
        ...(choices === undefined ? {} : { values: choices }),
        default: of.default ?? null,
        description: of.description ?? '',
      };
    };
    if (schema.oneOf !== undefined) return ofTypes(section, schema.oneOf, listed);
    if (schema.properties === undefined) return [listed(section, schema)];
    return Object.entries(schema.properties).map(([key, of]) => listed(`${section}.${key}`, of));
  });
  if (asked === undefined) return all;
  const found = all.filter(({ key }) => key === asked || key.startsWith(`${asked}.`));
  if (found.length > 0) return found;
  const { MbridgeError } = await import('../../base/errors.js');
  const { didYouMean } = await import('../../base/nearest.js');
  const names = [...sections.map(([section]) => section), ...all.map(({ key }) => key)];
  throw new MbridgeError('config', 'MB_CONFIG_UNKNOWN_KEY', `no section or key ${asked}${didYouMean(asked, names)}`, {
    hint: `sections: ${sections.map(([section]) => section).join(', ')}`,
  });
}

/** Keys of a section of several types, each once, with the types that have it. */
function ofTypes(
  section: string,
  variants: readonly JsonSchema[],
  listed: (key: string, of: JsonSchema, types: readonly string[]) => ListedKey,
): ListedKey[] {
  const typeOf = ({ properties }: JsonSchema): string => String(properties?.['type']?.const);
  const names = [...new Set(variants.flatMap(({ properties = {} }) => Object.keys(properties)))];
  return names.map((name) => {
    const owners = variants.filter(({ properties = {} }) => Object.hasOwn(properties, name));
    const types = owners.map(typeOf);
    if (name === 'type') return listed(`${section}.type`, { enum: types, description: 'what the section is' }, types);
    const [first] = owners;
    return listed(`${section}.${name}`, first?.properties?.[name] ?? {}, types);
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

import type { JsonSchema } from '../../config/json-schema.js';

/** A key as it is listed. */
export interface ListedKey {
  /** `section.key` */
  readonly key: string;
  /** Types of the section that have it, where it has several. */
  readonly types?: readonly string[];
  readonly takes: string;
  /** All that it takes, where these are few. */
  readonly values?: readonly (string | number | boolean | null)[];
  readonly default: unknown;
  readonly description: string;
}

/**
 * The keys of the configuration: all, or those that are asked for by a section or a key.
 * @throws MbridgeError MB_CONFIG_UNKNOWN_KEY (exit 3)
 */
export async function listKeys(asked?: string): Promise<ListedKey[]> {
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

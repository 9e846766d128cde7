// Writes src/config/config-types.ts and model-config.ts from configs/schema.json, which a test holds equal to the zod
// schema: the types of a configuration with what each key means, so that an editor shows it. `--check` only says whether
// they are up to date.
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import prettier from 'prettier';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const folder = join(root, 'src', 'config');
const { properties } = JSON.parse(readFileSync(join(root, 'configs', 'schema.json'), 'utf8'));

/** Name of the interface of a section, or of one of its variants. */
const nameOf = (section, variant = '') =>
  `${[variant, section]
    .filter(Boolean)
    .map((part) => part[0].toUpperCase() + part.slice(1))
    .join('')}Config`;

/** Sections that are one of several variants, by what they look like: wherever it stands, it is the section's type. */
const unions = new Map(
  Object.entries(properties)
    .filter(([, { oneOf }]) => oneOf !== undefined)
    .map(([name, { oneOf }]) => [JSON.stringify(oneOf), nameOf(name)]),
);

/** Keys whose type is written by hand: the schema does not say which keys of one may be absent, and the code takes any text in the other. */
const BY_HAND = { rope_scaling: 'RopeScaling', target_modules: 'string[]' };

function type(schema) {
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum !== undefined) return schema.enum.map((value) => JSON.stringify(value)).join(' | ');
  const variants = schema.anyOf ?? schema.oneOf;
  if (variants !== undefined) return unions.get(JSON.stringify(variants)) ?? variants.map(type).join(' | ');
  if (schema.type === 'array') return `(${type(schema.items)})[]`;
  if (schema.type === 'object') {
    return schema.properties === undefined ? `Record<string, ${type(schema.additionalProperties)}>` : body(schema);
  }
  return schema.type === 'integer' ? 'number' : schema.type;
}

function body({ properties: keys }) {
  const lines = Object.entries(keys).map(
    ([key, schema]) => `${comment(schema)}${key}: ${BY_HAND[key] ?? type(schema)};`,
  );
  return `{\n${lines.join('\n')}\n}`;
}

function comment({ description, default: value }) {
  if (description === undefined) return '';
  const unset = value === undefined || (value !== null && typeof value === 'object');
  return `/** ${description}.${unset ? '' : ` Default: ${JSON.stringify(value)}.`} */\n`;
}

function section(name, schema) {
  if (schema.oneOf !== undefined) {
    const variants = schema.oneOf.map((variant) => [nameOf(name, variant.properties.type.const), variant]);
    const whole = `${comment(schema)}export type ${nameOf(name)} = ${variants.map(([each]) => each).join(' | ')};`;
    return [whole, ...variants.map(([each, variant]) => `export interface ${each} ${body(variant)}`)];
  }
  return schema.properties === undefined ? [] : [`${comment(schema)}export interface ${nameOf(name)} ${body(schema)}`];
}

const whole = Object.entries(properties).map(([name, schema]) => {
  const own = schema.oneOf !== undefined || schema.properties !== undefined;
  return `${comment(schema)}${name}: ${own ? nameOf(name) : type(schema)};`;
});
const head = '// Written by scripts/config-types.mjs from configs/schema.json.';
const { model, ...others } = properties;
const written = {
  'model-config.ts': [`${head}\nimport type { RopeScaling } from '../families/rope.js';`, ...section('model', model)],
  'config-types.ts': [
    `${head}\nimport type { ModelConfig } from './model-config.js';\nexport type { ModelConfig };`,
    `/** A resolved configuration: every key present. */\nexport interface RunConfig {\n${whole.join('\n')}\n}`,
    ...Object.entries(others).flatMap(([name, schema]) => section(name, schema)),
  ],
};

for (const [name, parts] of Object.entries(written)) {
  const file = join(folder, name);
  const text = await prettier.format(parts.join('\n\n'), { ...(await prettier.resolveConfig(file)), filepath: file });
  if (!process.argv.includes('--check')) writeFileSync(file, text);
  else if (text !== readFileSync(file, 'utf8')) {
    console.error(`src/config/${name} is not that of configs/schema.json: run node scripts/config-types.mjs`);
    process.exitCode = 1;
  }
}

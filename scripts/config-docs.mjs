// Writes the tables of docs/configuration.md from configs/schema.json, which a test holds equal to the zod schema.
// `--check` only says whether the file is up to date.
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const file = join(root, 'docs', 'configuration.md');
const [begin, end] = ['<!-- written by scripts/config-docs.mjs -->', '<!-- end -->'];

function type(schema) {
  if (schema.const !== undefined) return `\`${schema.const}\``;
  if (schema.enum !== undefined) return schema.enum.map((value) => `\`${value}\``).join(', ');
  const variants = schema.anyOf ?? schema.oneOf;
  if (variants !== undefined) return variants.map(type).join(' or ');
  if (schema.type === 'array') return `list of ${type(schema.items)}`;
  if (schema.additionalProperties) return 'sections by name';
  if (schema.type === 'object')
    return `keys ${Object.keys(schema.properties)
      .map((key) => `\`${key}\``)
      .join(', ')}`;
  const bounds = [
    schema.minimum === undefined ? [] : [`>= ${schema.minimum}`],
    schema.exclusiveMinimum === undefined ? [] : [`> ${schema.exclusiveMinimum}`],
    schema.maximum === undefined ? [] : [`<= ${schema.maximum}`],
    schema.exclusiveMaximum === undefined ? [] : [`< ${schema.exclusiveMaximum}`],
    schema.multipleOf === undefined ? [] : [`multiple of ${schema.multipleOf}`],
  ].flat();
  return [schema.type, ...bounds].join(' ');
}

function row(key, schema) {
  const value = schema.default === undefined ? '' : `\`${JSON.stringify(schema.default)}\``;
  return `| \`${key}\` | ${type(schema)} | ${value} | ${schema.description ?? ''} |`;
}

function table(properties) {
  const rows = Object.entries(properties).map(([key, schema]) => row(key, schema));
  return ['| key | takes | default | |', '|---|---|---|---|', ...rows].join('\n');
}

function section(name, schema) {
  const title = `## ${name}\n\n${schema.description[0].toUpperCase()}${schema.description.slice(1)}.`;
  if (schema.oneOf !== undefined) {
    const variants = schema.oneOf.map(
      ({ properties: { type, ...rest } }) =>
        `With \`type: ${type.const}\`${type.description === undefined ? '' : ` (${type.description})`}` +
        (Object.keys(rest).length === 0 ? '.' : `:\n\n${table(rest)}`),
    );
    return [title, ...variants].join('\n\n');
  }
  return `${title}\n\n${schema.properties === undefined ? table({ [name]: schema }) : table(schema.properties)}`;
}

const { properties } = JSON.parse(readFileSync(join(root, 'configs', 'schema.json'), 'utf8'));
const tables = Object.entries(properties).map(([name, schema]) => section(name, schema));
const old = readFileSync(file, 'utf8');
const [start, stop] = [old.indexOf(begin), old.indexOf(end)];
if (start < 0 || stop < start) throw new Error(`${file} has lost its markers`);
const text = `${old.slice(0, start)}${begin}\n\n${tables.join('\n\n')}\n\n${old.slice(stop)}`;

if (!process.argv.includes('--check')) writeFileSync(file, text);
else if (text !== old) {
  console.error('docs/configuration.md is not that of configs/schema.json: run node scripts/config-docs.mjs');
  process.exitCode = 1;
}

// Writes the tables of docs/machine-interface.md from configs/output-schema.json, which a test holds equal to the zod
// schemas. `--check` only says whether the file is up to date.
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const file = join(root, 'docs', 'machine-interface.md');
const [begin, end] = ['<!-- written by scripts/output-docs.mjs -->', '<!-- end -->'];

/** Types by which what is printed falls apart; the rest are answers. */
const EVENTS =
  /^(start|step|evaluation|sample|loss_warning|straggler|stall|waiting|warning|saved|restart|generation|question|check|exported|rank_times)$/;
/** Files of a run that are one object. */
const FILES = /^(run_record|rank_error)$/;

function typeOf(schema) {
  if (schema.const !== undefined) return `\`${JSON.stringify(schema.const)}\``;
  if (schema.enum !== undefined) return schema.enum.map((value) => `\`${value}\``).join(', ');
  if (schema.anyOf !== undefined) return schema.anyOf.map(typeOf).join(' or ');
  if (schema.type === 'array') {
    if (schema.prefixItems !== undefined) return `[${schema.prefixItems.map(typeOf).join(', ')}]`;
    return `list of ${typeOf(schema.items)}`;
  }
  if (schema.type === 'object') {
    const { properties, additionalProperties } = schema;
    if (properties !== undefined)
      return `{${Object.keys(properties)
        .map((key) => `\`${key}\``)
        .join(', ')}}`;
    return typeof additionalProperties === 'object' && additionalProperties.type !== undefined
      ? `${typeOf(additionalProperties)} by name`
      : 'object';
  }
  return [schema.type ?? 'any value'].flat().join(' or ');
}

const cell = (text) => text.replaceAll('|', '\\|');

/** A row a key, and the keys of an object below it. */
function rows(properties, required, prefix = '') {
  return Object.entries(properties).flatMap(([key, schema]) => {
    if (prefix === '' && (key === 'schema' || key === 'type')) return [];
    const optional = required.includes(key) ? '' : '?';
    const row = `| \`${prefix}${key}\`${optional} | ${cell(typeOf(schema))} | ${cell(schema.description ?? '')} |`;
    const inner = schema.type === 'array' ? schema.items : schema;
    // The error is the same everywhere.
    if (inner?.properties === undefined || key === 'error') return [row];
    const below = `${prefix}${key}${schema.type === 'array' ? '[]' : ''}.`;
    return [row, ...rows(inner.properties, inner.required ?? [], below)];
  });
}

function table({ properties, required = [] }) {
  return ['| key | is | |', '|---|---|---|', ...rows(properties, required)].join('\n');
}

function section(title, schema, level = '###') {
  return `${level} ${title}\n\n${schema.description}.\n\n${table(schema)}`;
}

const { $defs } = JSON.parse(readFileSync(join(root, 'configs', 'output-schema.json'), 'utf8'));
const { result, ...others } = $defs;
const error = result.anyOf.find(({ title }) => title === 'failed').properties.error;
const of = (wanted) =>
  Object.entries(others)
    .filter(([type]) => wanted(type))
    .map(([type, schema]) => section(`\`${type}\``, schema));
const text = [
  '## Events',
  ...of((type) => EVENTS.test(type)),
  '## Results',
  'All have the type `result`; which of them it is, the command says.',
  ...result.anyOf.map((schema) => section(schema.title.replaceAll('_', ' '), schema)),
  '## The error',
  table(error),
  '## Files',
  ...of((type) => FILES.test(type)),
  '## Answers',
  ...of((type) => !EVENTS.test(type) && !FILES.test(type)),
].join('\n\n');

const old = readFileSync(file, 'utf8');
const [start, stop] = [old.indexOf(begin), old.indexOf(end)];
if (start < 0 || stop < start) throw new Error(`${file} has lost its markers`);
const next = `${old.slice(0, start)}${begin}\n\n${text}\n\n${old.slice(stop)}`;
if (!process.argv.includes('--check')) writeFileSync(file, next);
else if (next !== old) {
  console.error(
    'docs/machine-interface.md is not that of configs/output-schema.json: run node scripts/output-docs.mjs',
  );
  process.exitCode = 1;
}

// Writes src/engine/op-table.ts from native/core/ops.def and comm_ops.def, where every op is declared. `--check` only
// says whether the file is up to date.
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { format, resolveConfig } from 'prettier';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const file = join(root, 'src', 'engine', 'op-table.ts');
const ACCESS = ['r', 'w', 'rw', 's'].flatMap((access) => [access, `${access}?`]);

/** Ops of a .def file, in order: their place is their number. */
function ops(name, macro) {
  const text = readFileSync(join(root, 'native', 'core', name), 'utf8').replace(/\/\/.*$/gm, '');
  const row = new RegExp(`^MB_${macro}\\((\\w+),\\s*(\\w+),\\s*"([^"]*)",\\s*"([^"]*)"\\)`, 'gm');
  return [...text.matchAll(row)].map(([, constant, op, tensors, scalars], number) => {
    if (constant !== op.toUpperCase()) throw new Error(`${name}: ${constant} is not the name of ${op}`);
    return {
      number,
      name: op,
      tensors: Object.fromEntries(
        tensors.split(' ').map((tensor) => {
          const [called, access] = tensor.split(':');
          if (!ACCESS.includes(access)) throw new Error(`${name}: ${op} has a tensor "${tensor}"`);
          return [called, access];
        }),
      ),
      scalars: scalars.split(' '),
    };
  });
}

const camelCase = (name) => name.replace(/_(\w)/g, (_, letter) => letter.toUpperCase());

function table(name, doc, rows) {
  const entries = rows.map((row) => `${camelCase(row.name)}: ${JSON.stringify(row)}`);
  return `/** ${doc} */\nexport const ${name} = {${entries.join(',')}} as const satisfies Record<string, OpDeclaration>;`;
}

const text = await format(
  `/** How an op uses a tensor: reads it, writes all of it, changes it, or uses it as scratch. ?: it may be absent. */
export type Access = ${ACCESS.map((access) => `'${access}'`).join(' | ')};

/** An op as it is declared: what it takes, in order. */
export interface OpDeclaration {
  readonly number: number;
  readonly name: string;
  /** By name, in the order of the call. */
  readonly tensors: Readonly<Record<string, Access>>;
  readonly scalars: readonly string[];
}

${table('OPS', 'Ops of a device, written by scripts/op-table.mjs from native/core/ops.def, which documents them.', ops('ops.def', '(?:OP|LIBRARY_OP)'))}

${table('COMM_OPS', 'Ops of a communicator, from native/core/comm_ops.def.', ops('comm_ops.def', 'COMM_OP'))}
`,
  { ...(await resolveConfig(file)), parser: 'typescript' },
);

if (!process.argv.includes('--check')) writeFileSync(file, text);
else if (readFileSync(file, 'utf8') !== text) {
  console.error('src/engine/op-table.ts is not that of native/core/ops.def: run node scripts/op-table.mjs');
  process.exitCode = 1;
}

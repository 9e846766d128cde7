// node scripts/prebuild.mjs [--out FOLDER]: puts the CPU engine of this build into prebuilds/<platform>-<arch>/, from where an
// installation takes it that has no compiler. npm runs it before it packs (`prepack`). It runs on machines whose C and C++
// libraries are as new as this one's: build it on the oldest that is to be served.
import { copyFileSync, existsSync, mkdirSync, statSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { runTool } from './tools.mjs';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const { values } = parseArgs({ options: { out: { type: 'string', default: join(root, 'prebuilds') } } });
const from = join(root, 'native', 'build', 'mbridge.node');
const to = join(resolve(values.out), `${process.platform}-${process.arch}`, 'mbridge.node');

if (!existsSync(from)) {
  console.error(`error MB_PREBUILD: ${from} is not there\n  hint: run npm run build`);
  process.exit(4);
}
mkdirSync(dirname(to), { recursive: true });
copyFileSync(from, to);
// Symbols are half of it, and it runs without them.
const { failed } = runTool('strip', ['--strip-unneeded', to]);
console.error(
  `${to}: ${(statSync(to).size / 1e6).toFixed(1)} MB${failed ? ', with symbols (strip was not found)' : ''}`,
);

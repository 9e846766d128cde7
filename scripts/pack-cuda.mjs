// npm run pack:cuda [-- --out FOLDER] [--engine FILE]: packs the CUDA engine of this build as an npm package for this platform,
// which an installed mbridge of the same version finds by its name (src/engine/find.ts):
//
//   npm install ./mbridge-0.1.0.tgz ./mbridge-cuda-linux-x64-0.1.0.tgz
//
// The npm script builds the engine first, for all GPUs (MBRIDGE_CUDA_ARCHS=all). It is a package of its own because it is of
// no use without a GPU, and because only machines with nvcc can make it.
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { runTool, SHOWN } from './tools.mjs';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const { values } = parseArgs({
  options: {
    out: { type: 'string', default: root },
    engine: { type: 'string', default: join(root, 'native', 'build', 'libmbridge_cuda.so') },
  },
});
const engine = resolve(values.engine);
if (!existsSync(engine)) {
  console.error(`error MB_PREBUILD: ${engine} is not there\n  hint: run npm run pack:cuda where nvcc is`);
  process.exit(4);
}

const { version, license } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
const stage = mkdtempSync(join(tmpdir(), 'mbridge-cuda-package-'));
process.on('exit', () => rmSync(stage, { recursive: true, force: true }));
// As deep as in a build: the engine looks for `.cuda` three folders above itself.
const to = join(stage, 'native', 'build', 'libmbridge_cuda.so');
mkdirSync(dirname(to), { recursive: true });
copyFileSync(engine, to);
runTool('strip', ['--strip-unneeded', to]);
const manifest = {
  name: `@mbridge/cuda-${process.platform}-${process.arch}`,
  version,
  description: `The CUDA engine of mbridge ${version}`,
  license,
  os: [process.platform],
  cpu: [process.arch],
  libc: ['glibc'],
  files: ['native'],
};
writeFileSync(join(stage, 'package.json'), `${JSON.stringify(manifest, null, 2)}\n`);
mkdirSync(resolve(values.out), { recursive: true });
const { failed } = runTool('npm', ['pack', stage, '--silent', '--pack-destination', resolve(values.out)], {
  stdio: SHOWN,
});
if (failed) process.exit(4);
console.error(`${manifest.name} ${version}: an engine of ${(statSync(to).size / 1e6).toFixed(1)} MB`);

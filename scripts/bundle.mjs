// npm run bundle [-- --out FILE.tar.xz] [--level 0..9] [--no-cuda | --with-cuda-libs pip|DIR]: packs this build and the Node.js
// that runs this script into one archive, which runs where there is neither Node.js nor npm nor a network:
//
//   tar xJf mbridge-0.1.0-linux-x64.tar.xz && mbridge-0.1.0-linux-x64/mbridge doctor
//
// It needs the machine's C and C++ runtime (glibc of the age of the build's) and, for GPUs, its driver; and cuBLAS, NCCL and
// cuDNN where --with-cuda-libs does not bring them: what pip installs, or of a folder that `mbridge setup-cuda --into` filled.
// SHA-256 sums of the archive lie beside it, of its files in it. The same build gives the same bytes: names sorted, owners
// and times fixed.
import { createHash } from 'node:crypto';
import {
  chmodSync,
  closeSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, extname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { cudaLibraries } from './cuda-libraries.mjs';
import { runTool, SHOWN, version as versionOf } from './tools.mjs';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');

/** What of a package is not loaded at run time: types, sources, documentation and tests (in folders at its top). */
const UNUSED_ENDINGS = ['.ts', '.mts', '.cts', '.map', '.md', '.markdown', '.yml', '.tsbuildinfo'];
const UNUSED_FOLDERS = new Set([
  'test',
  'tests',
  'benchmark',
  'benchmarks',
  'bench',
  'doc',
  'docs',
  'example',
  'examples',
  '.github',
  'node_modules',
]);
/** Packages of which only some files are wanted; the rest of what package-lock.json installs is taken whole. */
const KEPT_PATHS = {
  // We import its ES modules; the same in CommonJS and in TypeScript is two thirds of the package.
  zod: (path) => !path.endsWith('.cjs') && !path.startsWith('src/'),
};
const NATIVE_CUDA = ['libmbridge_cuda.so', 'mbridge_peer_tests'];
const NATIVE = ['mbridge.node', 'mbridge_native_tests', ...NATIVE_CUDA];

const START = [
  '#!/bin/sh',
  '# Runs mbridge with the Node.js beside this file, from any folder and through links.',
  'self=$(readlink -f -- "$0") || exit 4',
  'root=${self%/*}',
  'exec "$root/runtime/node" "$root/bin/mbridge.js" "$@"',
  '',
].join('\n');

function stop(code, message, hint) {
  console.error(`error ${code}: ${message}\n  hint: ${hint}`);
  process.exit(4);
}

function run(command, args) {
  const { failed, code } = runTool(command, args, { stdio: SHOWN });
  if (code === 'ENOENT') stop('MB_BUNDLE_TOOL', `${command} was not found`, `install ${command}`);
  if (failed) stop('MB_BUNDLE_FAILED', `${command} failed (its output is above)`, 'fix what it names');
}

/** Paths of the files below a folder, from it, sorted; a folder whose path `skip` refuses is not entered. */
function filesBelow(folder, skip = () => false) {
  const found = [];
  const enter = (path) => {
    for (const entry of readdirSync(join(folder, path), { withFileTypes: true })) {
      const name = join(path, entry.name);
      if (entry.isDirectory()) {
        if (!skip(name)) enter(name);
      } else if (entry.isFile()) found.push(name);
    }
  };
  enter('');
  return found.sort();
}

function copy(from, to) {
  mkdirSync(dirname(to), { recursive: true });
  copyFileSync(from, to);
  chmodSync(to, statSync(from).mode & 0o100 ? 0o755 : 0o644);
}

/** dist/ without what no source stands for any more: the compiler leaves such files behind. */
function copyCompiled(stage) {
  for (const folder of ['src', 'recipes']) {
    for (const file of filesBelow(join(root, 'dist', folder))) {
      const source = join(root, folder, file.replace(/\.js$/, '.ts'));
      // What scripts/page.mjs makes has no source of its name.
      const page = /^trace\/page\/page\.(js|css)$/.test(file);
      if (page || (file.endsWith('.js') && existsSync(source)))
        copy(join(root, 'dist', folder, file), join(stage, 'dist', folder, file));
    }
  }
}

/** What package-lock.json installs for use, not for development. */
function copyDependencies(stage) {
  const { packages } = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8'));
  for (const [path, { dev, optional, link }] of Object.entries(packages)) {
    const folder = join(root, path);
    if (path === '' || dev || link || (optional && !existsSync(folder))) continue;
    if (!existsSync(folder)) stop('MB_BUNDLE_DEPENDENCY', `${path} is not installed`, 'run npm ci');
    const keep = KEPT_PATHS[path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length)] ?? (() => true);
    for (const file of filesBelow(folder, (inner) => UNUSED_FOLDERS.has(inner))) {
      if (keep(file) && !UNUSED_ENDINGS.includes(extname(file))) copy(join(folder, file), join(stage, path, file));
    }
  }
}

function copyNative(stage, cuda) {
  for (const name of NATIVE) {
    const from = join(root, 'native', 'build', name);
    if (NATIVE_CUDA.includes(name) && (!cuda || !existsSync(from))) {
      console.error(cuda ? `${name} is not built: the bundle runs on the CPU only` : `without ${name}`);
      continue;
    }
    if (!existsSync(from)) stop('MB_BUNDLE_BUILD', `${from} is not there`, 'run npm run bundle');
    copy(from, join(stage, 'native', 'build', name));
  }
}

/** Symbols are a seventh of Node.js; it runs without them, and so do our libraries. */
function strip(stage) {
  const files = ['runtime/node', ...NATIVE.map((name) => `native/build/${name}`)].map((path) => join(stage, path));
  const present = files.filter((file) => existsSync(file));
  if (versionOf('strip') !== undefined) run('strip', ['--strip-unneeded', ...present]);
}

/** Puts NVIDIA's libraries of `from` ('pip', or a folder that holds pip's `nvidia/`) to where the engine looks for them. */
function copyCudaLibraries(stage, from) {
  const engine = join(stage, 'native', 'build', 'libmbridge_cuda.so');
  if (!existsSync(engine)) {
    stop('MB_BUNDLE_BUILD', '--with-cuda-libs, and there is no CUDA engine', 'run npm run bundle where nvcc is');
  }
  const folder = from === 'pip' ? join(work, 'pip') : resolve(from);
  if (from === 'pip') run(process.execPath, [join(root, 'bin', 'mbridge.js'), 'setup-cuda', '--into', folder]);
  const { files, licenses, missing } = cudaLibraries(folder);
  if (missing.length > 0) {
    stop(
      'MB_BUNDLE_LIBRARIES',
      `${folder} holds no nvidia/*/lib with all of ${missing.join(', ')}`,
      'give a folder that npx mbridge setup-cuda --into filled, or pip',
    );
  }
  for (const file of [...files, ...licenses]) copy(join(folder, file), join(stage, '.cuda', file));
}

function sha256(path) {
  const hash = createHash('sha256');
  const file = openSync(path, 'r');
  const buffer = Buffer.allocUnsafe(1 << 22);
  for (let count; (count = readSync(file, buffer)) > 0;) hash.update(buffer.subarray(0, count));
  closeSync(file);
  return hash.digest('hex');
}

/** As sha256sum prints and checks them. */
function writeSums(to, folder, paths) {
  writeFileSync(to, paths.map((path) => `${sha256(join(folder, path))}  ${path}\n`).join(''));
}

function options() {
  try {
    const { values } = parseArgs({
      options: {
        out: { type: 'string' },
        level: { type: 'string', default: '6' },
        'no-cuda': { type: 'boolean', default: false },
        'with-cuda-libs': { type: 'string' },
      },
    });
    if (!/^[0-9]$/.test(values.level)) throw new Error(`--level ${values.level}`);
    if (values['no-cuda'] && values['with-cuda-libs'] !== undefined) throw new Error('--no-cuda --with-cuda-libs');
    return values;
  } catch (error) {
    return stop(
      'MB_BUNDLE_USAGE',
      error.message,
      '--out FILE.tar.xz, --level 0 (fast) to 9 (small), --no-cuda, or --with-cuda-libs pip or a folder',
    );
  }
}

const values = options();
const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
const name = `mbridge-${version}-${process.platform}-${process.arch}`;
const out = resolve(values.out ?? join(root, `${name}.tar.xz`));
if (!existsSync(join(root, 'dist', 'src', 'cli', 'main.js'))) {
  stop('MB_BUNDLE_BUILD', 'dist/ is not built', 'run npm run bundle');
}

const work = mkdtempSync(join(tmpdir(), 'mbridge-bundle-'));
process.on('exit', () => rmSync(work, { recursive: true, force: true }));
const stage = join(work, name);
for (const file of ['package.json', 'README.md', 'LICENSE']) {
  if (existsSync(join(root, file))) copy(join(root, file), join(stage, file));
}
// The check of a machine with GPUs, and what it compares with.
for (const file of ['scripts/gpu-check.sh', 'bench/torch_bf16_oracle.py']) copy(join(root, file), join(stage, file));
for (const folder of ['bin', 'configs', 'data', 'docs', 'fixtures']) {
  for (const file of filesBelow(join(root, folder))) copy(join(root, folder, file), join(stage, folder, file));
}
copyCompiled(stage);
copyDependencies(stage);
copyNative(stage, !values['no-cuda']);
copy(process.execPath, join(stage, 'runtime', 'node'));
writeFileSync(join(stage, 'mbridge'), START, { mode: 0o755 });
strip(stage);
if (values['with-cuda-libs'] !== undefined) copyCudaLibraries(stage, values['with-cuda-libs']);
writeSums(join(stage, 'SHA256SUMS'), stage, filesBelow(stage));

const files = filesBelow(stage);
const unpacked = files.reduce((sum, file) => sum + statSync(join(stage, file)).size, 0);
mkdirSync(dirname(out), { recursive: true });
const fixed = ['--sort=name', '--owner=0', '--group=0', '--numeric-owner', '--mtime=@0', '--mode=u=rwX,go=rX'];
run('tar', ['-C', work, ...fixed, '--use-compress-program', `xz -${values.level} -T0`, '-cf', out, name]);
writeSums(`${out}.sha256`, dirname(out), [basename(out)]);
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;
console.error(
  `${relative(process.cwd(), out)}: ${megabytes(statSync(out).size)} (${files.length} files, ${megabytes(unpacked)} unpacked)`,
);

// Checks the format of native/**/*.{h,cc,cu,cuh} with clang-format (--fix rewrites). The npm package brings a binary for
// some platforms only: elsewhere a system clang-format is used, and without one the check says that it was skipped.
import { readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { execaSync } from 'execa';
import { findFirst } from './tools.mjs';

const native = join(dirname(fileURLToPath(import.meta.url)), '..', 'native');

function* sources(folder) {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory() && path !== join(native, 'build')) yield* sources(path);
    else if (/\.(h|cc|cu|cuh)$/.test(entry.name)) yield path;
  }
}

function packaged() {
  try {
    const folder = dirname(createRequire(import.meta.url).resolve('clang-format/package.json'));
    return join(folder, 'bin', `${process.platform}_${process.arch}`, 'clang-format');
  } catch {
    return undefined;
  }
}

const tool = findFirst([packaged(), 'clang-format']);
if (tool === undefined) {
  console.error(`clang-format: skipped, no binary for ${process.platform} ${process.arch} and none on PATH`);
} else {
  const mode = process.argv.includes('--fix') ? ['-i'] : ['--dry-run', '-Werror'];
  const options = { reject: false, stdio: 'inherit', timeout: 600_000 };
  process.exitCode = execaSync(tool, [...mode, ...sources(native)], options).exitCode ?? 1;
}

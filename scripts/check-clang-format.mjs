// Checks the format of native/**/*.{h,cc,cu,cuh} with clang-format (--fix rewrites). The npm package brings a binary for
// some platforms only: elsewhere a system clang-format is used, and without one the check says that it was skipped.
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { native, nativeFiles } from './native-sources.mjs';
import { findFirst, runTool } from './tools.mjs';

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
  const sources = nativeFiles().filter((path) => /\.(h|cc|cu|cuh)$/.test(path));
  const args = [...mode, ...sources.map((path) => join(native, path))];
  process.exitCode = runTool(tool, args, { stdio: 'inherit' }).exitCode ?? 1;
}

import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { installation } from '../base/installation.js';
import { packageRoot, packageVersion } from '../base/package-root.js';

type Env = Readonly<Record<string, string | undefined>>;

const PLATFORM = `${process.platform}-${process.arch}`;
/** The optional npm package with the CUDA engine for this platform (scripts/pack-cuda.mjs makes it). */
export const CUDA_PACKAGE = `@mbridge/cuda-${PLATFORM}`;

/** A part of the engine: where it is, or where it would be built. */
export interface EnginePart {
  readonly path: string;
  /** What led there, for people: a variable, the build of this machine, or a package; null where there is none. */
  readonly from: string | null;
  /** Of the package that it is from; undefined where it is from none. */
  readonly version?: string;
}

function built(name: string): EnginePart {
  const path = join(packageRoot(), 'native', 'build', name);
  const from = installation().kind === 'bundle' ? 'of this bundle' : 'built here';
  return { path, from: existsSync(path) ? from : null };
}

/**
 * The native addon, with the CPU engine: the file that `MBRIDGE_NATIVE` names, else what was built here, else what the
 * package brought for this platform (scripts/prebuild.mjs).
 */
export function findAddon(env: Env = process.env): EnginePart {
  const named = env['MBRIDGE_NATIVE'];
  if (named) return { path: resolve(named), from: 'MBRIDGE_NATIVE' };
  const here = built('mbridge.node');
  const brought = join(packageRoot(), 'prebuilds', PLATFORM, 'mbridge.node');
  return here.from === null && existsSync(brought) ? { path: brought, from: 'brought by the package' } : here;
}

/** The CUDA engine: the file that `MBRIDGE_CUDA_ENGINE` names, else what was built here, else that of {@link CUDA_PACKAGE}. */
export function findCudaEngine(env: Env = process.env): EnginePart {
  const named = env['MBRIDGE_CUDA_ENGINE'];
  if (named) return { path: resolve(named), from: 'MBRIDGE_CUDA_ENGINE' };
  const here = built('libmbridge_cuda.so');
  const other = here.from === null ? cudaPackage() : undefined;
  if (other === undefined) return here;
  const { folder, version } = other;
  return { path: join(folder, 'native', 'build', 'libmbridge_cuda.so'), from: CUDA_PACKAGE, version };
}

/** The CUDA engine's package where it is installed beside this one. */
function cudaPackage(): { readonly folder: string; readonly version: string } | undefined {
  try {
    const file = createRequire(import.meta.url).resolve(`${CUDA_PACKAGE}/package.json`);
    const { version } = JSON.parse(readFileSync(file, 'utf8')) as { version: string };
    return { folder: dirname(file), version };
  } catch {
    return undefined;
  }
}

/** File name of the CUDA engine's package for this version, as `npm pack` names it. */
function cudaArchive(): string {
  return `mbridge-cuda-${PLATFORM}-${packageVersion()}.tgz`;
}

/** What to do where the CPU engine is not there or does not load, by how mbridge was installed. */
export function addonHint(): string {
  const { kind, command } = installation();
  if (kind === 'bundle') return 'this bundle does not serve here: make one on a machine like this (docs/install.md)';
  return `build it here: ${command} build`;
}

/** What to do where the CUDA engine is not there or does not load, by how mbridge was installed. */
export function cudaEngineHint(): string {
  const { kind, command, npmInstall } = installation();
  if (kind === 'bundle') return 'make a bundle with it where the sources and nvcc are (docs/install.md)';
  const build = `install the CUDA toolkit (nvcc 12.4 or newer) and run: ${command} setup-cuda`;
  if (kind === 'clone') return build;
  return `${npmInstall} ./${cudaArchive()} (docs/install.md says how it is made), or ${build}`;
}

import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';
import { MbridgeError } from '../base/errors.js';
import { packageRoot } from '../base/package-root.js';
import type { NativeBinding } from './binding.js';

/** The version of native/core/abi.h that this package speaks. */
export const NATIVE_ABI = 8;

/**
 * Where the native addon is looked for: the file that `MBRIDGE_NATIVE` names, else what was built here, else what the
 * package brought for this platform (scripts/prebuild.mjs).
 */
export function nativePath(env: NodeJS.ProcessEnv = process.env): string {
  const named = env['MBRIDGE_NATIVE'];
  if (named) return resolve(named);
  const built = join(packageRoot(), 'native', 'build', 'mbridge.node');
  const brought = join(packageRoot(), 'prebuilds', `${process.platform}-${process.arch}`, 'mbridge.node');
  return !existsSync(built) && existsSync(brought) ? brought : built;
}

/**
 * Loads the native addon from {@link nativePath}.
 * @throws MbridgeError MB_NATIVE_MISSING naming the path and what was wrong with it.
 */
export function loadBinding(env: NodeJS.ProcessEnv = process.env): NativeBinding {
  const path = nativePath(env);
  const refuse = (problem: string, cause?: unknown): MbridgeError =>
    new MbridgeError('environment', 'MB_NATIVE_MISSING', `the native engine cannot be loaded: ${path} ${problem}`, {
      hint: env['MBRIDGE_NATIVE'] ? 'point MBRIDGE_NATIVE at an mbridge.node, or unset it' : 'run: mbridge build',
      cause,
      details: { path },
    });
  if (!existsSync(path)) throw refuse('does not exist');
  let binding: NativeBinding;
  try {
    binding = createRequire(import.meta.url)(path) as NativeBinding;
  } catch (error) {
    throw refuse(`does not load: ${error instanceof Error ? error.message : String(error)}`, error);
  }
  if (binding.abi !== NATIVE_ABI) {
    throw refuse(`was built for ABI ${binding.abi}, and this package needs ${NATIVE_ABI}`);
  }
  return binding;
}

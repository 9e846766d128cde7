import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { MbridgeError } from '../base/errors.js';
import type { NativeBinding } from './binding.js';
import { addonHint, findAddon } from './find.js';

/** The version of native/core/abi.h that this package speaks. */
export const NATIVE_ABI = 10;

/**
 * Loads the native addon from where {@link findAddon} finds it.
 * @throws MbridgeError MB_NATIVE_MISSING naming the path and what was wrong with it.
 */
export function loadBinding(env: NodeJS.ProcessEnv = process.env): NativeBinding {
  const { path } = findAddon(env);
  const refuse = (problem: string, cause?: unknown): MbridgeError =>
    new MbridgeError('environment', 'MB_NATIVE_MISSING', `the native engine cannot be loaded: ${path} ${problem}`, {
      hint: env['MBRIDGE_NATIVE'] ? 'point MBRIDGE_NATIVE at an mbridge.node, or unset it' : addonHint(),
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

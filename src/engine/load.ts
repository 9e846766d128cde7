import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { MbridgeError } from '../errors.js';
import type { NativeBinding } from './binding.js';

/** The version of native/core/abi.h that this package speaks. */
export const NATIVE_ABI = 1;

/**
 * Loads the native addon: the file that `MBRIDGE_NATIVE` names, else `native/build/mbridge.node` of this package.
 * @throws MbridgeError MB_NATIVE_MISSING naming every path and what was wrong with it.
 */
export function loadBinding(env: NodeJS.ProcessEnv = process.env): NativeBinding {
  const named = env['MBRIDGE_NATIVE'];
  const candidates = [named ? named : join(packageRoot(), 'native', 'build', 'mbridge.node')];
  const require = createRequire(import.meta.url);
  const problems: string[] = [];
  for (const path of candidates) {
    if (!existsSync(path)) {
      problems.push(`${path}: does not exist`);
      continue;
    }
    try {
      const binding = require(path) as NativeBinding;
      if (binding.abi === NATIVE_ABI) return binding;
      problems.push(`${path}: was built for ABI ${binding.abi}, this package needs ${NATIVE_ABI}`);
    } catch (error) {
      problems.push(`${path}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
  throw new MbridgeError('environment', 'MB_NATIVE_MISSING', `the native engine cannot be loaded: ${problems.join('; ')}`, {
    hint: named ? 'unset MBRIDGE_NATIVE, or point it at an mbridge.node' : 'run: npm run build:native',
    details: { problems },
  });
}

/** The nearest folder above this file with a package.json: the root, seen from src/ as well as from dist/src/. */
function packageRoot(): string {
  const start = dirname(fileURLToPath(import.meta.url));
  let folder = start;
  while (!existsSync(join(folder, 'package.json'))) {
    const parent = dirname(folder);
    if (parent === folder) return start;
    folder = parent;
  }
  return folder;
}

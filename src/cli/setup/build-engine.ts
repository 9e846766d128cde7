import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { MbridgeError } from '../../base/errors.js';
import { installation } from '../../base/installation.js';
import { packageRoot } from '../../base/package-root.js';
import { runCommand } from '../../base/run-command.js';
import { cudaEngineHint } from '../../engine/find.js';

const BUILD_TIMEOUT_MS = 2 * 3_600_000;

/**
 * Builds the native engine of this installation with CMake: `all` of it (`mbridge build`), with CUDA where nvcc is, or the
 * CUDA engine alone.
 * @throws MbridgeError MB_BUILD_SOURCES where there is nothing to build from, MB_BUILD_FAILED; exit 4
 */
export async function buildEngine(what: 'all' | 'cuda'): Promise<void> {
  const script = join(packageRoot(), 'scripts', 'build-native.mjs');
  if (!existsSync(script) || !existsSync(join(packageRoot(), 'native', 'CMakeLists.txt'))) {
    throw new MbridgeError('environment', 'MB_BUILD_SOURCES', `${packageRoot()} holds no sources of the engine`, {
      hint: 'this is a bundle: build where the sources are (with nvcc, for CUDA), and make the bundle there again',
    });
  }
  const args = what === 'cuda' ? [script, 'cuda'] : [script];
  const { failure } = await runCommand(process.execPath, args, { timeoutMs: BUILD_TIMEOUT_MS, show: true });
  if (failure !== undefined) {
    throw new MbridgeError('environment', 'MB_BUILD_FAILED', `the native build failed: ${failure}`, {
      hint:
        what === 'cuda'
          ? `fix what is named above; else ${cudaEngineHint()}`
          : `fix what is named above, then run ${installation().command} build again`,
    });
  }
}

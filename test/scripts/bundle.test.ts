import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { needsTestPrograms } from '../helpers/test-programs.js';

const ROOT = join(import.meta.dirname, '..', '..');

const { cudaLibraries } = (await import(join(ROOT, 'scripts', 'cuda-libraries.mjs'))) as {
  cudaLibraries: (folder: string) => { files: string[]; licenses: string[]; missing: string[] };
};

/** Unpacked bundle, and what the packing and each run printed. */
const folder = mkdtempSync(join(tmpdir(), 'mbridge-bundle-test-'));
const archive = join(folder, 'mbridge.tar.xz');
// Tools of the system, but no Node.js: it is what the bundle brings.
const tools = join(folder, 'tools');
const unpacked = (): string => join(folder, readdirSync(folder).find((name) => name.startsWith('mbridge-')) ?? 'none');

async function start(args: readonly string[], program = join(unpacked(), 'mbridge')) {
  const env = { PATH: tools, HOME: folder };
  return execa(program, args, { cwd: folder, env, extendEnv: false, reject: false });
}

needsTestPrograms();
beforeAll(async () => {
  const script = join(ROOT, 'scripts', 'bundle.mjs');
  await execa(process.execPath, [script, '--out', archive, '--level', '0', '--no-cuda']);
  await execa('tar', ['-C', folder, '-xJf', archive]);
  await execa('mkdir', [tools]);
  symlinkSync('/usr/bin/readlink', join(tools, 'readlink'));
}, 120_000);

afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

test('the bundle brings what it runs on, and nothing that only the build needs', () => {
  for (const path of ['runtime/node', 'native/build/mbridge.node', 'native/build/mbridge_native_tests']) {
    expect(existsSync(join(unpacked(), path)), path).toBe(true);
  }
  for (const path of ['docs/install.md', 'scripts/gpu-check.sh', 'fixtures/qwen3-tied']) {
    expect(existsSync(join(unpacked(), path)), path).toBe(true);
  }
  const files = readdirSync(unpacked(), { recursive: true, encoding: 'utf8' });
  expect(files.filter((name) => name.endsWith('.d.ts') || name.endsWith('.map'))).toEqual([]);
  expect(files.filter((name) => /node_modules\/(typescript|vitest|eslint|node-addon-api)\//.test(name))).toEqual([]);
});

test('it answers from any folder, also through a link, with no Node.js on the path', async () => {
  symlinkSync(join(unpacked(), 'mbridge'), join(folder, 'link'));
  const direct = await start(['--help']);
  const linked = await start(['--help'], join(folder, 'link'));
  expect(direct.stderr).toBe('');
  expect(direct.stdout).toContain('pretrain');
  expect(linked.stdout).toBe(direct.stdout);
});

test('it trains, with its own text as data', async () => {
  const data = ['dataset.type=text', 'dataset.path=builtin:moby-dick'];
  const small = ['model.seq_length=64', 'train.global_batch_size=2', 'train.train_iters=2'];
  const run = await start(['pretrain', 'qwen3-tiny', '--device', 'cpu', '--nproc', '2', ...data, ...small]);
  expect(run.exitCode, run.stderr).toBe(0);
  expect(run.stdout).toMatch(/^step +2\/2 /m);
  // There is no Node.js and no npx to go on with.
  expect(run.stderr).toContain(`train on with: ${unpacked()}/mbridge resume `);
});

test('its sums, and those in it, are right', async () => {
  await execa('sha256sum', ['--check', '--quiet', 'mbridge.tar.xz.sha256'], { cwd: folder });
  await execa('sha256sum', ['--check', '--quiet', 'SHA256SUMS'], { cwd: unpacked() });
});

test('it says that it is a bundle where it lacks the CUDA engine', async () => {
  const { exitCode, stderr } = await start(['setup-cuda']);
  expect(exitCode).toBe(4);
  expect(stderr).toContain('MB_BUILD_SOURCES');
});

test('packing the same build again gives the same bytes', async () => {
  const again = join(folder, 'again.tar.xz');
  const script = join(ROOT, 'scripts', 'bundle.mjs');
  await execa(process.execPath, [script, '--out', again, '--level', '0', '--no-cuda']);
  await execa('cmp', [archive, again]);
}, 60_000);

describe("of NVIDIA's pip packages", () => {
  const pip = join(folder, 'pip');
  const put = (...paths: string[]) => {
    for (const path of paths) {
      mkdirSync(dirname(join(pip, path)), { recursive: true });
      writeFileSync(join(pip, path), path);
    }
  };
  const wanted = [
    'nvidia/cu13/lib/libcublasLt.so.13',
    'nvidia/cudnn/lib/libcudnn.so.9',
    'nvidia/cudnn/lib/libcudnn_engines_precompiled.so.9',
    'nvidia/cudnn/lib/libcudnn_engines_runtime_compiled.so.9',
    'nvidia/cudnn/lib/libcudnn_graph.so.9',
    'nvidia/cudnn/lib/libcudnn_heuristic.so.9',
  ];

  test('what the engine opens and its licences are taken, and what is missing is named', () => {
    expect(cudaLibraries(pip)).toEqual({ files: [], licenses: [], missing: ['cuBLASLt', 'NCCL', 'cuDNN'] });
    put(
      ...wanted,
      'nvidia/cu13/lib/libcublas.so.13',
      'nvidia/cudnn/lib/libcudnn_adv.so.9',
      'nvidia/cudnn/include/cudnn.h',
    );
    const license = 'nvidia_cudnn_cu13-9.1.dist-info/licenses/License.txt';
    put(license, 'nvidia_cudnn_cu13-9.1.dist-info/METADATA', 'other-1.0.dist-info/LICENSE.txt');
    expect(cudaLibraries(pip)).toEqual({ files: wanted, licenses: [license], missing: ['NCCL'] });
  });
});

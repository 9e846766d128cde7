import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa, execaSync } from 'execa';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { DoctorFacts } from '../../src/doctor/facts.js';

const ROOT = join(import.meta.dirname, '..', '..');
const full = process.env['MBRIDGE_TEST_FULL'] === '1';

const folder = mkdtempSync(join(tmpdir(), 'mbridge-package-test-'));
const home = join(folder, 'app', 'node_modules', 'mbridge');
// What npm and npx need, and neither CMake nor a compiler.
const tools = join(folder, 'tools');
const PACKAGE = /^mbridge-\d.*\.tgz$/;
// The machine of a test may have nvcc.
const env = { PATH: tools, HOME: folder, MBRIDGE_CUDA: '0' };

async function run(program: string, args: readonly string[], more: Record<string, string> = {}, cwd = folder) {
  return execa(program, args, { cwd, env: { ...env, ...more }, extendEnv: false, reject: false, all: true });
}

beforeAll(async () => {
  mkdirSync(tools);
  symlinkSync(process.execPath, join(tools, 'node'));
  for (const tool of ['sh', 'env']) {
    symlinkSync(realpathSync(execaSync('which', [tool]).stdout), join(tools, tool));
  }
  await execa('npm', ['pack', '--pack-destination', folder], { cwd: ROOT });
  // As npm would install it; the dependencies are those of the checkout.
  await unpack(archiveNamed(PACKAGE), home);
  for (const name of readdirSync(join(ROOT, 'node_modules'))) {
    if (name !== 'mbridge' && !name.startsWith('.')) {
      symlinkSync(join(ROOT, 'node_modules', name), join(folder, 'app', 'node_modules', name));
    }
  }
}, 120_000);

afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

/** The packed file of that name in our folder. */
function archiveNamed(name: RegExp): string {
  return join(folder, readdirSync(folder).find((file) => name.test(file)) ?? 'none');
}

async function unpack(archive: string, into: string): Promise<void> {
  mkdirSync(into, { recursive: true });
  await execa('tar', ['-C', into, '--strip-components=1', '-xzf', archive]);
}

const mbridge = (args: readonly string[]) => run(process.execPath, [join(home, 'bin', 'mbridge.js'), ...args]);
interface Lock {
  packages: Record<string, { dev?: boolean }>;
}

test('an installation is fewer than 20 packages, and runs no script', () => {
  const { packages } = JSON.parse(readFileSync(join(ROOT, 'package-lock.json'), 'utf8')) as Lock;
  const installed = Object.keys(packages).filter((path) => path !== '' && packages[path]?.dev !== true);
  expect(1 + installed.length, installed.join(', ')).toBeLessThan(20);
  const { scripts } = JSON.parse(readFileSync(join(home, 'package.json'), 'utf8')) as { scripts: object };
  expect(Object.keys(scripts).filter((name) => /^(pre|post)?install$/.test(name))).toEqual([]);
});

describe('the packed package, where there is neither CMake nor a compiler', () => {
  test('trains with the engine and on the text that it brings', async () => {
    expect(existsSync(join(home, 'native', 'build'))).toBe(false);
    const small = ['model.seq_length=64', 'train.global_batch_size=2', 'train.train_iters=2', '--device', 'cpu'];
    const { exitCode, stdout, all } = await mbridge(['pretrain', 'qwen3-tiny', '--nproc', '1', ...small]);
    expect(exitCode, all).toBe(0);
    expect(stdout).toMatch(/^step +2\/2 /m);
  });

  test('says how to build the engine where it brings none, and what that takes', async () => {
    const [brought, away] = ['prebuilds', 'away'].map((name) => join(home, name));
    renameSync(brought!, away!);
    const doctor = await mbridge(['doctor']);
    renameSync(away!, brought!);
    expect(doctor.exitCode).toBe(4);
    expect(doctor.all).toContain('mbridge.node does not exist (build it here: npx mbridge build)');
    const build = await mbridge(['build']);
    expect(build.exitCode).toBe(4);
    expect(build.all).toContain('error MB_BUILD_CMAKE: cmake was not found\n  hint: install CMake');
  });

  test('finds the CUDA engine in the package beside it, if that is of its version', async () => {
    const missing = await mbridge(['setup-cuda']);
    expect(missing.exitCode).toBe(4);
    expect(missing.all).toMatch(/npm install \.\/mbridge-cuda-[\w.-]+\.tgz.* and run: npx mbridge setup-cuda/);

    const engine = join(folder, 'engine.so');
    await execa('cc', ['-shared', '-x', 'c', '-', '-o', engine], { input: 'int not_an_engine;' });
    await execa(process.execPath, [join(ROOT, 'scripts', 'pack-cuda.mjs'), '--out', folder, '--engine', engine]);
    const name = `@mbridge/cuda-${process.platform}-${process.arch}`;
    const cuda = join(folder, 'app', 'node_modules', name);
    await unpack(archiveNamed(/^mbridge-cuda-.*\.tgz$/), cuda);
    const found = JSON.parse((await mbridge(['doctor', '--json'])).stdout) as DoctorFacts;
    expect(found.cuda).toMatchObject({ engine: join(cuda, 'native', 'build', 'libmbridge_cuda.so'), from: name });
    expect(found.cuda.reason).toContain('has no mb_backend_entry');

    const manifest = join(cuda, 'package.json');
    writeFileSync(manifest, readFileSync(manifest, 'utf8').replace(/"version": ".*"/, '"version": "0.0.1"'));
    const other = JSON.parse((await mbridge(['doctor', '--json'])).stdout) as DoctorFacts;
    expect(other.cuda.reason).toMatch(/^@mbridge\/cuda-\S+ 0\.0\.1 does not belong to mbridge \d/);
  });

  test('checks itself against the fixtures that it brings, and names only commands that it has', async () => {
    const only = ['--parts', 'fixtures', '--only', 'qwen3-tied tp1 pp1 dp1', '--nproc', '1', '--device', 'cpu'];
    const { exitCode, all } = await mbridge(['bench', 'check', ...only]);
    expect(exitCode, all).toBe(0);
    const doctor = await mbridge(['doctor']);
    expect(doctor.exitCode, doctor.all).toBe(0);
    expect(doctor.all).not.toContain('npm run');
  });

  test.runIf(full)('brings types that a strict program compiles against', async () => {
    const program = [
      "import { pretrain, qwen3TinyPretrainConfig, MbridgeError, type RunConfig } from 'mbridge';",
      'const config: RunConfig = qwen3TinyPretrainConfig({ train_iters: 2 });',
      'export const code: Promise<number> = pretrain(config);',
      '// @ts-expect-error no such key',
      'config.train.no_such_key = 1;',
      'export const hint: string | undefined = new MbridgeError("usage", "MB_USAGE", "x").hint;',
    ];
    writeFileSync(join(folder, 'app', 'program.ts'), program.join('\n'));
    const tsc = join(ROOT, 'node_modules', 'typescript', 'bin', 'tsc');
    const strict = ['--strict', '--skipLibCheck', 'false', '--exactOptionalPropertyTypes', '--noEmit'];
    const target = ['--module', 'nodenext', '--target', 'es2023', '--types', 'node'];
    const { exitCode, all } = await run(
      process.execPath,
      [tsc, ...strict, ...target, 'program.ts'],
      {},
      join(folder, 'app'),
    );
    expect(exitCode, all).toBe(0);
  });
});

// Asks the registry, so it is for the long round.
test.runIf(full)('npm installs it, and its command is on the path', async () => {
  const app = join(folder, 'fresh');
  mkdirSync(app);
  const npm = realpathSync(execaSync('which', ['npm']).stdout);
  const flags = ['--prefer-offline', '--no-audit', '--no-fund', '--no-package-lock'];
  const cache = execaSync('npm', ['config', 'get', 'cache']).stdout;
  const { exitCode, all } = await run(
    process.execPath,
    [npm, 'install', archiveNamed(PACKAGE), ...flags],
    { npm_config_cache: cache },
    app,
  );
  expect(exitCode, all).toBe(0);
  const doctor = await run(join(app, 'node_modules', '.bin', 'mbridge'), ['doctor', '--json']);
  expect(JSON.parse(doctor.stdout)).toMatchObject({ usable: { cpu: true }, native: { ok: true } });
  expect(readdirSync(join(app, 'node_modules')).length).toBeLessThan(20);
});

test('a checkout that is not compiled says so', async () => {
  const checkout = join(folder, 'checkout');
  mkdirSync(join(checkout, 'bin'), { recursive: true });
  writeFileSync(join(checkout, 'package.json'), '{"type":"module"}');
  copyFileSync(join(ROOT, 'bin', 'mbridge.js'), join(checkout, 'bin', 'mbridge.js'));
  const { exitCode, all } = await run(process.execPath, [join(checkout, 'bin', 'mbridge.js'), 'doctor']);
  expect(exitCode).toBe(4);
  expect(all).toContain('error MB_NOT_BUILT: dist/ is not there: this checkout is not built\n  run: npm run build');
});

import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa, execaSync } from 'execa';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

const ROOT = join(import.meta.dirname, '..', '..');
const full = process.env['MBRIDGE_TEST_FULL'] === '1';

const folder = mkdtempSync(join(tmpdir(), 'mbridge-package-test-'));
const home = join(folder, 'app', 'node_modules', 'mbridge');
// What npm needs to run a script, and neither CMake nor a compiler.
const tools = join(folder, 'tools');
// Where nvcc is, an installation builds for CUDA; the machine of a test may have one.
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
  const [archive] = readdirSync(folder).filter((name) => name.endsWith('.tgz'));
  await execa('tar', ['-C', folder, '-xzf', join(folder, archive!)]);
  cpSync(join(folder, 'package'), home, { recursive: true });
  for (const name of readdirSync(join(ROOT, 'node_modules'))) {
    if (name !== 'mbridge' && !name.startsWith('.')) {
      symlinkSync(join(ROOT, 'node_modules', name), join(folder, 'app', 'node_modules', name));
    }
  }
}, 120_000);

afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

const install = (more: Record<string, string> = {}) =>
  run(process.execPath, [join(home, 'scripts', 'build.mjs'), 'native'], more, home);
const mbridge = (args: readonly string[]) => run(process.execPath, [join(home, 'bin', 'mbridge.js'), ...args]);

describe('the packed package, where there is neither CMake nor a compiler', () => {
  test('installs with the engine that it brings, and trains on the text that it brings', async () => {
    const installed = await install();
    expect(installed.exitCode, installed.all).toBe(0);
    expect(installed.all).toContain('the CPU engine that the package brings');
    expect(existsSync(join(home, 'native', 'build'))).toBe(false);
    const small = ['model.seq_length=64', 'train.global_batch_size=2', 'train.train_iters=2', '--device', 'cpu'];
    const { exitCode, stdout, all } = await mbridge(['pretrain', 'qwen3-tiny', '--nproc', '1', ...small]);
    expect(exitCode, all).toBe(0);
    expect(stdout).toMatch(/^step +2\/2 /m);
  });

  test('says what to install where that engine does not serve', async () => {
    const { exitCode, all } = await install({ MBRIDGE_PREBUILT: '0' });
    expect(exitCode).toBe(4);
    expect(all).toContain('error MB_BUILD_CMAKE: cmake was not found\n  hint: install CMake');
    const build = await mbridge(['build']);
    expect(build.exitCode).toBe(4);
    expect(build.all).toContain('MB_BUILD_CMAKE');
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
  const [archive] = readdirSync(folder).filter((name) => name.endsWith('.tgz'));
  const npm = realpathSync(execaSync('which', ['npm']).stdout);
  const flags = ['--prefer-offline', '--no-audit', '--no-fund', '--no-package-lock'];
  const cache = execaSync('npm', ['config', 'get', 'cache']).stdout;
  const { exitCode, all } = await run(
    process.execPath,
    [npm, 'install', join(folder, archive!), ...flags],
    { npm_config_cache: cache },
    app,
  );
  expect(exitCode, all).toBe(0);
  const doctor = await run(join(app, 'node_modules', '.bin', 'mbridge'), ['doctor', '--json']);
  expect(JSON.parse(doctor.stdout)).toMatchObject({ usable: { cpu: true }, native: { ok: true } });
  expect(readdirSync(join(app, 'node_modules')).length).toBeLessThan(60);
});

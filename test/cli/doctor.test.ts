import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { CudaDescription, DoctorFacts } from '../../src/doctor/facts.js';
import { diagnose, formatReport } from '../../src/cli/doctor/report.js';
import { mbridge } from './mbridge.js';

const folder = mkdtempSync(join(tmpdir(), 'mbridge-doctor-'));
const crashing = join(folder, 'crashing.so');
const garbage = join(folder, 'garbage.so');

beforeAll(async () => {
  writeFileSync(garbage, 'no library\n');
  const source = '__attribute__((constructor)) void start(void) { __builtin_trap(); }';
  await execa('cc', ['-shared', '-x', 'c', '-', '-o', crashing], { input: source });
});

afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

type Answer = DoctorFacts & { usable: { cpu: boolean; cuda: boolean; problems: string[] } };

async function doctor(env: Record<string, string> = {}): Promise<{ exitCode: number | undefined; facts: Answer }> {
  const { exitCode, stdout, stderr } = await mbridge(['doctor', '--json'], env);
  expect(stderr).toBe('');
  return { exitCode, facts: JSON.parse(stdout) as Answer };
}

describe('mbridge doctor', () => {
  test('finds a CPU to train on, and says what a run would use', async () => {
    const { exitCode, facts } = await doctor();
    expect(exitCode).toBe(0);
    expect(facts.usable.cpu).toBe(true);
    expect(facts.cpu.cores).toBeGreaterThan(0);
    expect(facts.native.path).toMatch(/native\/build\/mbridge\.node$/);
    expect(facts.native.from).toBe('built here');
    const text = await mbridge(['doctor']);
    expect(text.stdout).toContain('CPU: usable');
    expect(text.stdout).toContain(`by default a run takes ${facts.default.processes} process`);
  });

  test.each([
    ['does not exist', '/nowhere/libmbridge_cuda.so', /is not there/],
    ['is no library', garbage, /does not load: .*garbage\.so/],
    ['ends the process that loads it', crashing, /ended by SIG\w+ after native/],
  ])('survives a CUDA engine that %s', async (_, path, reason) => {
    const { exitCode, facts } = await doctor({ MBRIDGE_CUDA_ENGINE: path });
    expect(exitCode).toBe(0);
    expect(facts.usable).toMatchObject({ cpu: true, cuda: false });
    expect(facts.cuda.reason).toMatch(reason);
    expect(facts.environment['MBRIDGE_CUDA_ENGINE']).toBe(path);
  });

  test('ends with 4 where not even the CPU part loads, and says once why', async () => {
    const env = { MBRIDGE_NATIVE: relative(process.cwd(), garbage) };
    const { exitCode, facts } = await doctor(env);
    expect(exitCode).toBe(4);
    expect(facts.native).toMatchObject({ path: garbage, ok: false });
    expect(facts.usable.problems.join()).toContain('garbage.so');
    const { stdout } = await mbridge(['doctor'], env);
    expect(stdout).toContain(`engine  ${garbage} (MBRIDGE_NATIVE), which cannot be loaded (below)\n`);
    expect(stdout.split(facts.native.reason!)).toHaveLength(2);
  });

  test('names the engine that is loaded where MBRIDGE_NATIVE is empty', async () => {
    const { exitCode, facts } = await doctor({ MBRIDGE_NATIVE: '' });
    expect(exitCode).toBe(0);
    expect(facts.native.path).toMatch(/native\/build\/mbridge\.node$/);
  });
});

const LIBRARY = {
  name: 'NCCL',
  needed_for: 'x',
  loaded: true,
  version: '2.28.3',
  path: '/l/libnccl.so.2',
  reason: null,
};
const MISSING = { ...LIBRARY, loaded: false, version: null, path: null, reason: 'NCCL (libnccl.so.2) is missing' };

/** A machine with GPUs, as the probe describes one. */
function machine(description: Partial<CudaDescription>, gpus = 2): DoctorFacts {
  const indices = Array.from({ length: gpus }, (_, index) => index);
  return {
    version: '1.0.0',
    package: '/opt/mbridge',
    node: { version: '20.0.0', path: '/opt/mbridge/runtime/node', glibc: '2.39' },
    cpu: {
      model: 'A CPU',
      cores: 16,
      kernels: 'v4',
      total_bytes: 2 ** 37,
      available_bytes: 2 ** 36,
      shm_free_bytes: 2 ** 36,
    },
    native: { path: '/opt/mbridge/native/build/mbridge.node', from: 'built here', ok: true, reason: null },
    cuda: {
      engine: '/opt/mbridge/native/build/libmbridge_cuda.so',
      from: 'built here',
      loaded: true,
      reason: null,
      kernel_driver: '580.159.04',
      visible_gpus: gpus,
      devices: indices.map((index) => ({ index, free_bytes: 140e9, attention: 'cudnn 9.19.0', reason: null })),
      description: {
        runtime: '13.0',
        architectures: 'sm_90a',
        driver: { supports: '13.0', needed: '13.0', ok: true },
        devices: indices.map((index) => ({
          index,
          name: 'H200',
          capability: 90,
          total_bytes: 150e9,
          peak_tflops: 989,
          error: null,
        })),
        device_error: null,
        peer_access: indices.map((i) => indices.map((j) => i === j || gpus === 2)),
        libraries: { cublaslt: LIBRARY, cudnn: LIBRARY, nccl: LIBRARY },
        library_directories: [],
        ...description,
      },
    },
    crash: null,
    environment: {},
    default: { device: 'cuda', processes: gpus, precision: 'bf16_mixed' },
  };
}

describe('a machine with GPUs', () => {
  test('is usable, and each GPU is a line', () => {
    const facts = machine({});
    expect(diagnose(facts)).toEqual({ cpu: true, cuda: true, problems: [] });
    const text = formatReport(facts);
    expect(text).toContain(
      'GPU 1   H200 (sm_90), 130.4 GiB of 139.7 GiB free, bf16 peak 989 TFLOP/s, attention by cudnn 9.19.0',
    );
    expect(text).toContain('every GPU reads every other');
    expect(text).toContain('by default a run takes 2 processes on cuda in bf16_mixed\n');
  });

  test('names pairs without peer access', () => {
    expect(formatReport(machine({}, 3))).toContain('no access between 0-1, 0-2, 1-0, 1-2, 2-0, 2-1');
  });

  test.each<[string, Partial<CudaDescription>, number, boolean, RegExp]>([
    [
      'NCCL is missing and there are two',
      { libraries: { cublaslt: LIBRARY, cudnn: LIBRARY, nccl: MISSING } },
      2,
      false,
      /libnccl/,
    ],
    [
      'NCCL is missing and there is one',
      { libraries: { cublaslt: LIBRARY, cudnn: LIBRARY, nccl: MISSING } },
      1,
      true,
      /^$/,
    ],
    ['cuDNN is missing', { libraries: { cublaslt: LIBRARY, cudnn: MISSING, nccl: LIBRARY } }, 2, true, /^$/],
    [
      'the driver is too old',
      { driver: { supports: '12.2', needed: '13.0', ok: false } },
      2,
      false,
      /supports CUDA 12\.2, 13\.0 is needed/,
    ],
    ['none is visible', { devices: [] }, 2, false, /no GPU is visible/],
  ])('%s', (_, change, gpus, usable, problem) => {
    const diagnosis = diagnose(machine(change, gpus));
    expect(diagnosis.cuda).toBe(usable);
    expect(diagnosis.problems.join('\n')).toMatch(problem);
  });
});

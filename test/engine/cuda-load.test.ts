import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { BUILD, needsTestPrograms } from '../helpers/test-programs.js';

const library = join(BUILD, 'libmbridge_cuda.so');
const hasNvcc = ['nvcc', '/usr/local/cuda/bin/nvcc'].some((nvcc) => spawnSync(nvcc, ['--version']).status === 0);
const built = existsSync(library);
if (!built && !hasNvcc) {
  console.warn(
    'CUDA backend not tested: native/build/libmbridge_cuda.so was not built, and there is no nvcc to build it',
  );
} else needsTestPrograms();

interface LibraryReport {
  loaded: boolean;
  version: string | null;
  path: string | null;
  reason: string | null;
}

interface Report {
  name: string;
  other_abi_is_null: boolean;
  missing_ops: number;
  count: number;
  count_status: number;
  count_error: string;
  open_status: number;
  open_error: string;
  describe: {
    backend: string;
    architectures: string;
    driver: { supports: string | null; needed: string; ok: boolean };
    devices: { index: number; name: string; capability: number; total_bytes: number; error: string | null }[];
    device_error: string | null;
    peer_access: boolean[][];
    libraries: Record<'cublaslt' | 'cudnn' | 'nccl', LibraryReport>;
    library_directories: string[];
  };
}

/** What libmbridge_cuda.so says when a program loads it as the addon does. */
function load(libs = ''): Report {
  const text = execFileSync(join(BUILD, 'mbridge_cuda_load'), [library], {
    encoding: 'utf8',
    env: { ...process.env, MBRIDGE_CUDA_LIBS: libs },
  });
  return JSON.parse(text) as Report;
}

/** The graphs and executions that the stand-in for cuDNN printed, one operation a line. */
function attentionGraphs(sizes: readonly number[]): { graphs: string[][]; executions: string[] } {
  const text = execFileSync(join(BUILD, 'mbridge_attention_ops'), sizes.map(String), {
    encoding: 'utf8',
    env: { ...process.env, MBRIDGE_CUDA_LIBS: join(BUILD, 'mock-cudnn') },
  });
  const graphs: string[][] = [];
  const executions: string[] = [];
  for (const line of text.trim().split('\n')) {
    if (line === 'graph') graphs.push([]);
    else if (line.startsWith('execute')) executions.push(line);
    else if (!line.startsWith('workspace')) graphs.at(-1)?.push(line);
  }
  return { graphs, executions };
}

const POINTWISE: Record<string, string> = {
  0: 'add',
  1: 'mul',
  6: 'div',
  9: 'sub',
  13: 'exp',
  15: 'log',
  21: 'identity',
  303: 'ge',
  501: 'index',
  601: 'select',
};
const TYPES: Record<string, string> = { 0: 'f32', 4: 'i32', 9: 'bf16', 11: 'bool' };

/** An operation and the type of its result, with `*` where that lies in memory. */
function summary(line: string): string {
  const [op = ''] = line.split(' ');
  const pointwise = /^pointwise(\d+)$/.exec(op)?.[1];
  const name = pointwise === undefined ? ({ reduce0: 'sum', reduce3: 'max' }[op] ?? op) : POINTWISE[pointwise];
  const result = / [yc]=(v?)\d+:(\d+)\[/.exec(line);
  return `${name}>${TYPES[result?.[2] ?? '']}${result?.[1] === 'v' ? '' : '*'}`;
}

const scratch = mkdtempSync(join(tmpdir(), 'mbridge-cuda-'));
afterAll(() => rmSync(scratch, { recursive: true }));

describe.skipIf(!built && !hasNvcc)('libmbridge_cuda.so', () => {
  it('is built where nvcc is', () => {
    expect(built, `${library} is missing: npm run build:native`).toBe(true);
  });

  it('exports one symbol and links no NVIDIA library', () => {
    const symbols = execFileSync('nm', ['-D', '--defined-only', library], { encoding: 'utf8' });
    expect(
      symbols
        .trim()
        .split('\n')
        .map((line) => line.split(' ').at(-1)),
    ).toEqual(['mb_backend_entry']);
    const needed = [...execFileSync('readelf', ['-d', library], { encoding: 'utf8' }).matchAll(/NEEDED.*\[(.*)\]/g)];
    expect(needed.map((match) => match[1]).filter((name) => /cuda|cublas|cudnn|nccl|nvrtc/.test(name ?? ''))).toEqual(
      [],
    );
  });

  it('answers without a device, and names what is missing', () => {
    const report = load();
    expect(report).toMatchObject({ name: 'cuda', other_abi_is_null: true, missing_ops: 0 });
    expect(report.describe.backend).toBe('cuda');
    expect(report.describe.architectures).toMatch(/^sm_\d+a?( sm_\d+a?)*$/);
    expect(report.describe.devices).toHaveLength(report.count);
    expect(report.describe.peer_access).toHaveLength(report.count);
    if (report.count === 0) {
      expect(report).toMatchObject({ count_status: 3, open_status: 3 });
      expect(report.count_error).toMatch(/no CUDA device: .+ \(cudaError\w+\)/);
      expect(report.open_error).toBe(report.count_error);
      expect(report.describe.device_error).toBe(report.count_error);
    } else {
      expect(report.describe).toMatchObject({ device_error: null, driver: { ok: true } });
      expect(report.open_error).toContain(`device ${report.count} does not exist`);
    }
    for (const found of Object.values(report.describe.libraries)) {
      if (found.loaded) {
        expect(found).toMatchObject({ reason: null, version: expect.stringMatching(/^\d+\.\d+\.\d+$/) as string });
      } else {
        expect(found.reason).toMatch(/could not be loaded: .+ Run `mbridge setup-cuda`, or set MBRIDGE_CUDA_LIBS/);
      }
    }
  });

  it('opens libraries from MBRIDGE_CUDA_LIBS first, and reports a broken one with the words of the loader', () => {
    writeFileSync(join(scratch, 'libnccl.so.2'), 'not a library');
    const mock = join(BUILD, 'mock-cudnn');
    const { describe: found } = load(`${scratch}:/nonexistent:${mock}`);
    expect(found.library_directories.slice(0, 2)).toEqual([scratch, mock]);
    expect(found.libraries.cudnn).toEqual({
      name: 'cuDNN',
      needed_for: expect.any(String) as string,
      loaded: true,
      version: '9.19.0',
      path: join(mock, 'libcudnn.so.9'),
      reason: null,
    });
    if (!found.libraries.nccl.loaded) {
      expect(found.libraries.nccl.reason).toContain(`${join(scratch, 'libnccl.so.2')}: file too short`);
    }
  });
});

// cuDNN's engines match a graph by its whole list of operations and the types between them. Expected: the measured lists
// of the attention that runs at full speed on cuDNN 9.14 and 9.19.
const CAUSAL = ['index>i32', 'index>i32', 'ge>bool', 'select>f32'];
const FORWARD = [
  'matmul>f32',
  'mul>f32',
  'mask',
  'max>f32',
  'sub>f32',
  'exp>f32',
  'sum>f32',
  'log>f32',
  'add>f32*',
  'div>bf16',
  'matmul>bf16*',
];
const GROUPED = ['matmul>bf16', 'sum>bf16*'];
const backward = (product: string[], dq: string[]): string[] => [
  ...['mul>f32', 'sum>f32', 'mul>f32*', 'matmul>f32', 'mul>f32', 'sub>f32', 'mask', 'exp>f32', 'reshape>bf16'],
  ...product,
  ...['matmul>f32', 'sub>f32', 'mul>f32', 'mul>f32', 'reshape>bf16'],
  ...product,
  'reshape>f32',
  ...dq,
];

describe.skipIf(!built && !hasNvcc)('cuDNN attention graphs', () => {
  const accumulated = ['matmul>f32*', 'identity>bf16*'];
  it.each([
    { sizes: [2, 256, 256, 4, 2, 64, 1, 0], expected: backward(GROUPED, accumulated) },
    { sizes: [2, 256, 256, 4, 2, 128, 1, 1], expected: backward(GROUPED, ['matmul>bf16*']) },
    { sizes: [1, 384, 384, 4, 4, 128, 1, 0], expected: backward(['matmul>bf16*'], accumulated) },
    { sizes: [1, 384, 384, 4, 4, 64, 1, 1], expected: backward(['matmul>bf16*'], ['matmul>bf16*']) },
    { sizes: [1, 128, 384, 4, 4, 64, 1, 1], expected: backward(['matmul>bf16*'], ['matmul>bf16*']) },
    { sizes: [1, 128, 384, 4, 2, 64, 0, 1], expected: backward(GROUPED, ['matmul>bf16*']) },
    { sizes: [1, 256, 256, 4, 2, 128, 0, 0], expected: backward(GROUPED, accumulated) },
  ])('b, sq, skv, hq, hkv, d, causal, deterministic = $sizes', ({ sizes, expected }) => {
    const { graphs } = attentionGraphs(sizes);
    // A row of fewer queries than keys is moved before it is compared.
    const moved = sizes[1] === sizes[2] ? [] : ['add>i32', 'sub>i32'];
    const mask = sizes[6] === 0 ? [] : CAUSAL.flatMap((op) => (op === 'ge>bool' ? [...moved, op] : [op]));
    const masked = (graph: string[]): string[] => graph.flatMap((op) => (op === 'mask' ? mask : [op]));
    expect(graphs.map((graph) => graph.map(summary))).toEqual([FORWARD, expected].map(masked));
    for (const line of graphs.flat()) {
      expect(line).toMatch(/^(matmul|reduce[03]|reshape|pointwise)/);
      if (line.startsWith('pointwise303')) expect(line).toContain('prec=11');
      else if (/^pointwise\d+ .* y=v\d+:4/.test(line)) expect(line).toMatch(/prec=[04] /);
      else if (!line.startsWith('reshape')) expect(line).toMatch(/(comp|prec)=0 /);
    }
  });

  it('reads and writes the heads of one interleaved buffer in place', () => {
    const { graphs, executions } = attentionGraphs([2, 256, 256, 4, 2, 64, 1, 0]);
    const all = graphs.flat().join('\n');
    // 8 heads of 64: a token is 512 elements on, a sequence 256 tokens. k is declared transposed.
    for (const [id, shape] of [
      ['1:9', '[2,4,256,64]{131072,64,512,1}'],
      ['2:9', '[2,2,64,256]{131072,64,1,512}'],
      ['4:9', '[2,4,256,64]{65536,64,256,1}'],
      ['5:0', '[2,4,256,1]{1024,256,1,1}'],
      ['7:9', '[2,4,256,64]{131072,64,512,1}'],
      ['8:9', '[2,2,256,64]{131072,64,512,1}'],
      ['9:9', '[2,2,256,64]{131072,64,512,1}'],
    ]) {
      expect(all).toContain(`=${id}${shape}/16`);
    }
    // q, k, v at 0x1000 + 0, 4 and 6 heads of 128 bytes; ids that the graph does not have are not bound.
    expect(executions).toEqual([
      'execute workspace=393216 1=4096 2=4608 3=4864 4=131072 5=196608 10=0.25 11=-inf',
      'execute workspace=925696 1=4096 2=4608 3=4864 4=131072 5=196608 6=262144 7=327680 8=328192 9=328448 10=0.25 ' +
        '11=-inf 12=1 13=917504 14=393216',
    ]);
  });
});

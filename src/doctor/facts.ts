import { existsSync, readFileSync, statfsSync } from 'node:fs';
import { totalmem } from 'node:os';
import { nodeOptions } from '../base/early-signals.js';
import { compiledFile, packageRoot, packageVersion } from '../base/package-root.js';
import { runCommand } from '../base/run-command.js';
import { findAddon, findCudaEngine } from '../engine/find.js';
import { chooseDevice, defaultProcesses, visibleGpus } from '../engine/devices.js';
import { availableBytes } from '../train/machine-memory.js';

/** One line of the probing process. */
export type ProbeLine =
  | { stage: 'native'; cores: number | null; description: string | null; reason: string | null }
  | { stage: 'cuda'; description: string | null; reason: string | null }
  | { stage: 'device'; index: number; freeBytes: number | null; attention: string | null; reason: string | null }
  | { stage: 'end' };

/** What the CUDA backend says of itself (native/cuda/describe.cc). */
export interface CudaDescription {
  readonly runtime: string;
  readonly architectures: string;
  readonly driver: { readonly supports: string | null; readonly needed: string; readonly ok: boolean };
  readonly devices: readonly {
    readonly index: number;
    readonly name?: string;
    readonly capability?: number;
    readonly total_bytes?: number;
    readonly peak_tflops?: number;
    readonly error: string | null;
  }[];
  readonly device_error: string | null;
  readonly peer_access: readonly (readonly boolean[])[];
  readonly libraries: Readonly<
    Record<
      'cublaslt' | 'cudnn' | 'nccl',
      {
        readonly name: string;
        readonly needed_for: string;
        readonly loaded: boolean;
        readonly version: string | null;
        readonly path: string | null;
        readonly reason: string | null;
      }
    >
  >;
  readonly library_directories: readonly string[];
}

/** Everything that `mbridge doctor` found; its `--json` output. */
export interface DoctorFacts {
  readonly version: string;
  readonly package: string;
  readonly node: { readonly version: string; readonly path: string; readonly glibc: string | null };
  readonly cpu: {
    readonly model: string | null;
    /** Cores that this process may use; a run shares them among its ranks as threads. */
    readonly cores: number | null;
    readonly kernels: string | null;
    readonly total_bytes: number;
    readonly available_bytes: number;
    /** Free space for the shared memory of CPU ranks; null where /dev/shm is not there. */
    readonly shm_free_bytes: number | null;
  };
  readonly native: {
    readonly path: string;
    /** What led to it; null where there is none. */
    readonly from: string | null;
    readonly ok: boolean;
    readonly reason: string | null;
  };
  readonly cuda: {
    readonly engine: string;
    /** What led to it; null where there is none. */
    readonly from: string | null;
    readonly loaded: boolean;
    readonly reason: string | null;
    /** Kernel module's version by /proc; null where none is loaded. */
    readonly kernel_driver: string | null;
    readonly visible_gpus: number;
    readonly description: CudaDescription | null;
    readonly devices: readonly {
      readonly index: number;
      readonly free_bytes: number | null;
      readonly attention: string | null;
      readonly reason: string | null;
    }[];
  };
  /** The signal or exit code that ended the probing process before its end, and after which stage. */
  readonly crash: string | null;
  readonly environment: Readonly<Record<string, string>>;
  readonly default: { readonly device: 'cpu' | 'cuda'; readonly processes: number; readonly precision: string };
}

type Env = Readonly<Record<string, string | undefined>>;

const PROBE_TIMEOUT_MS = 120_000;

interface ProbeResult {
  lines: ProbeLine[];
  crash: string | null;
}

/** Runs the probe in a process of its own. */
async function runProbe(env: Env): Promise<ProbeResult> {
  const probe = compiledFile('doctor/probe.js');
  const options = { env, timeoutMs: PROBE_TIMEOUT_MS };
  const { failure, stdout, stderr } = await runCommand(process.execPath, [...nodeOptions(), probe], options);
  // A library may print to stdout too.
  const lines = stdout
    .split('\n')
    .filter((line) => line.startsWith('{"stage":'))
    .map((line) => JSON.parse(line) as ProbeLine);
  if (failure === undefined) return { lines, crash: null };
  const last = lines.at(-1);
  const after = last === undefined ? 'while the engine was loaded' : `after ${last.stage}`;
  const said = stderr.trim().split('\n').slice(-3).join(' | ');
  return { lines, crash: `the probing process ended by ${failure} ${after}${said === '' ? '' : `: ${said}`}` };
}

function find<Stage extends ProbeLine['stage']>(
  lines: readonly ProbeLine[],
  stage: Stage,
): Extract<ProbeLine, { stage: Stage }>[] {
  return lines.filter((line): line is Extract<ProbeLine, { stage: Stage }> => line.stage === stage);
}

function kernelDriver(): string | null {
  try {
    return /\b(\d{3,}\.\d+(?:\.\d+)?)\b/.exec(readFileSync('/proc/driver/nvidia/version', 'utf8'))?.[1] ?? null;
  } catch {
    return null;
  }
}

function shmFreeBytes(): number | null {
  try {
    const { bavail, bsize } = statfsSync('/dev/shm');
    return bavail * bsize;
  } catch {
    return null;
  }
}

function glibc(): string | null {
  const report = process.report.getReport() as { header?: { glibcVersionRuntime?: string } };
  return report.header?.glibcVersionRuntime ?? null;
}

/** Our own settings, and what CUDA and NCCL read. */
function environmentOf(env: Env): Record<string, string> {
  const wanted = Object.entries(env).filter(([name]) =>
    /^(MBRIDGE_|CUDA_|NCCL_|LD_LIBRARY_PATH$|NVIDIA_VISIBLE_DEVICES$)/.test(name),
  );
  return Object.fromEntries(wanted.filter(([name]) => name !== 'MBRIDGE_TOKEN')) as Record<string, string>;
}

/** Looks at this machine. Never throws for what it finds. */
export async function gatherFacts(env: Env = process.env): Promise<DoctorFacts> {
  const { lines, crash } = await runProbe(env);
  const native = find(lines, 'native')[0];
  const cuda = find(lines, 'cuda')[0];
  const cpu = native?.description == null ? null : (JSON.parse(native.description) as Record<string, unknown>);
  const addon = findAddon(env);
  const engine = findCudaEngine(env);
  const device = chooseDevice({ dist: { device: 'auto' } });
  const text = (key: string): string | null => (typeof cpu?.[key] === 'string' ? cpu[key] : null);
  return {
    version: packageVersion(),
    package: packageRoot(),
    node: { version: process.versions.node, path: process.execPath, glibc: glibc() },
    cpu: {
      model: text('model'),
      cores: native?.cores ?? null,
      kernels: text('kernels'),
      total_bytes: totalmem(),
      available_bytes: availableBytes(),
      shm_free_bytes: shmFreeBytes(),
    },
    native: {
      path: addon.path,
      from: addon.from,
      ok: native?.reason === null,
      reason: native === undefined ? (crash ?? 'the probe said nothing') : native.reason,
    },
    cuda: {
      engine: engine.path,
      from: engine.from,
      loaded: cuda?.reason === null,
      reason: cuda?.reason ?? (cuda === undefined && existsSync(engine.path) ? crash : null),
      kernel_driver: kernelDriver(),
      visible_gpus: visibleGpus(env),
      description: cuda?.description == null ? null : (JSON.parse(cuda.description) as CudaDescription),
      devices: find(lines, 'device').map(({ index, freeBytes, attention, reason }) => ({
        index,
        free_bytes: freeBytes,
        attention,
        reason,
      })),
    },
    crash,
    environment: environmentOf(env),
    default: { device, processes: defaultProcesses(device), precision: device === 'cuda' ? 'bf16_mixed' : 'fp32' },
  };
}

import { installation } from '../../base/installation.js';
import type { CudaDescription, DoctorFacts } from '../../doctor/facts.js';

export interface Diagnosis {
  readonly cpu: boolean;
  readonly cuda: boolean;
  /** What stands in the way of a device that is there or was asked for, with what to do. */
  readonly problems: readonly string[];
}

/** What can be used, and why not the rest. */
export function diagnose(facts: DoctorFacts): Diagnosis {
  const { native, cuda } = facts;
  const problems = native.ok ? [] : [`engine: ${native.reason ?? 'does not load'}`];
  const gpuThere = cuda.visible_gpus > 0 || cuda.kernel_driver !== null || (cuda.description?.devices.length ?? 0) > 0;
  const gpuProblems = cudaProblems(facts);
  // Without a GPU a missing library is no problem: it is only listed.
  if (gpuThere) problems.push(...gpuProblems);
  else if (facts.crash !== null) problems.push(facts.crash);
  return { cpu: native.ok, cuda: native.ok && gpuProblems.length === 0, problems };
}

function cudaProblems(facts: DoctorFacts): string[] {
  const { cuda, crash } = facts;
  const { description } = cuda;
  if (description === null) return [whyNoEngine(facts)];
  const problems = crash === null ? [] : [crash];
  if (description.device_error !== null) return [...problems, description.device_error];
  const { driver, devices, libraries } = description;
  if (!driver.ok) {
    problems.push(
      `the driver supports CUDA ${driver.supports ?? 'none'}, ${driver.needed} is needed: install a newer one`,
    );
  }
  if (devices.length === 0) problems.push('no GPU is visible: check nvidia-smi and CUDA_VISIBLE_DEVICES');
  problems.push(...cuda.devices.flatMap(({ index, reason }) => (reason === null ? [] : [`GPU ${index}: ${reason}`])));
  const needed = devices.length > 1 ? [libraries.cublaslt, libraries.nccl] : [libraries.cublaslt];
  problems.push(...needed.flatMap(({ loaded, reason }) => (loaded ? [] : [reason ?? 'a library is missing'])));
  return problems;
}

function origin(from: string | null): string {
  return from === null ? '' : ` (${from})`;
}

function gib(bytes: number | null | undefined): string {
  return bytes == null ? 'unknown' : `${(bytes / 2 ** 30).toFixed(1)} GiB`;
}

function deviceLines({ cuda }: DoctorFacts, description: CudaDescription): string[] {
  return description.devices.map((device) => {
    if (device.error !== null) return `  GPU ${device.index}   ${device.error}`;
    const opened = cuda.devices.find(({ index }) => index === device.index);
    const peak = device.peak_tflops ? `, bf16 peak ${device.peak_tflops} TFLOP/s` : '';
    const memory = `${gib(opened?.free_bytes)} of ${gib(device.total_bytes)} free`;
    const attention = opened?.attention == null ? '' : `, attention by ${opened.attention}`;
    return `  GPU ${device.index}   ${device.name ?? 'unknown'} (sm_${device.capability ?? '?'}), ${memory}${peak}${attention}`;
  });
}

function peerLine({ peer_access: peers }: CudaDescription): string[] {
  if (peers.length < 2) return [];
  const missing = peers.flatMap((row, i) => row.flatMap((can, j) => (can ? [] : [`${i}-${j}`])));
  return [
    `  peers   ${missing.length === 0 ? 'every GPU reads every other' : `no access between ${missing.join(', ')}`}`,
  ];
}

function whyNoEngine({ cuda, native }: DoctorFacts): string {
  if (!native.ok) return `${cuda.engine}: not tried, it is loaded by the engine above`;
  return cuda.reason ?? `there is no CUDA engine: ${cuda.engine} is not there`;
}

function cudaLines(facts: DoctorFacts): string[] {
  const { cuda } = facts;
  const { description } = cuda;
  const driver = cuda.kernel_driver === null ? 'no NVIDIA driver is loaded' : `driver ${cuda.kernel_driver}`;
  if (description === null) return [`  engine  ${whyNoEngine(facts)}`, `  driver  ${driver}`];
  const { driver: api, libraries } = description;
  return [
    `  engine  ${cuda.engine}${origin(cuda.from)}, CUDA ${description.runtime} for ${description.architectures}`,
    `  driver  ${driver}; ${api.supports === null ? '' : `serves CUDA ${api.supports}, `}CUDA ${api.needed} is needed`,
    ...(description.devices.length === 0 ? [`  GPU     ${description.device_error ?? 'none'}`] : []),
    ...deviceLines(facts, description),
    ...peerLine(description),
    ...Object.values(libraries).map((library) =>
      library.loaded
        ? `  library ${library.name} ${library.version ?? '?'}, ${library.path ?? '?'}`
        : `  missing ${library.name}, needed for ${library.needed_for}${whyNotLoaded(library.reason)}`,
    ),
    ...(Object.values(libraries).every(({ loaded }) => loaded) ? [] : [`  remedy  ${REMEDY}`]),
    ...(description.library_directories.length === 0
      ? []
      : [`  looked in ${description.library_directories.join(', ')}, then the system's folders`]),
  ];
}

const REMEDY = `${installation().command} setup-cuda, or MBRIDGE_CUDA_LIBS=FOLDER that holds them`;

/** What the system says of a library that is there, and cannot be used; that there is none is no news. */
function whyNotLoaded(reason: string | null): string {
  const said = /could not be loaded: (.*?)(?:\. Run `|$)/.exec(reason ?? '')?.[1] ?? '';
  const other = said.split('; ').filter((part) => part !== '' && !part.endsWith('No such file or directory'));
  return other.length === 0 ? '' : `: ${other.join('; ')}`;
}

/** In one line: what can be used, and whether there is something to do. */
function verdict(facts: DoctorFacts): string {
  const { cpu, cuda, problems } = diagnose(facts);
  const devices = facts.cuda.description?.devices.length ?? 0;
  const toDo = problems.length === 1 ? '1 thing to do' : `${problems.length} things to do`;
  const gpus = cuda ? `${devices} ready` : problems.length > 0 && cpu ? `${toDo} (below)` : 'none here';
  return `CPU: ${cpu ? 'ready' : 'not usable (below)'}. GPUs: ${gpus}.`;
}

/** The report for people. */
export function formatReport(facts: DoctorFacts): string {
  const { cpu, native, node } = facts;
  const { cpu: cpuOk, cuda: cudaOk, problems } = diagnose(facts);
  const choice = facts.default;
  const environment = Object.entries(facts.environment)
    .filter(([name]) => name !== 'MBRIDGE_SIGNALS_IGNORED') // of our own start
    .map(([name, value]) => `  ${name}=${value}`);
  const unusable = (choice.device === 'cuda' ? cudaOk : cpuOk) ? '' : ', which cannot be used (below)';
  return [
    verdict(facts),
    `mbridge ${facts.version} in ${facts.package}`,
    `  Node.js ${node.version}, ${node.path}${node.glibc === null ? '' : `, glibc ${node.glibc}`}`,
    `  engine  ${native.path}${origin(native.from)}${native.ok ? '' : ', which cannot be loaded (below)'}`,
    `CPU: ${cpuOk ? 'usable' : 'not usable'}`,
    `  ${cpu.model ?? 'unknown'}, ${cpu.cores ?? '?'} cores usable (a run shares them among its ranks), kernels ${cpu.kernels ?? '?'}`,
    `  memory  ${gib(cpu.available_bytes)} of ${gib(cpu.total_bytes)} available; /dev/shm ${gib(cpu.shm_free_bytes)} free`,
    `CUDA: ${cudaOk ? 'usable' : 'not usable'}`,
    ...cudaLines(facts),
    ...(environment.length === 0 ? [] : ['environment:', ...environment]),
    `by default a run takes ${choice.processes} process${choice.processes === 1 ? '' : 'es'} on ${choice.device} in ${choice.precision}${unusable}`,
    ...(problems.length === 0 ? [] : ['problems:', ...problems.map((problem) => `  ${problem}`)]),
    '',
  ].join('\n');
}

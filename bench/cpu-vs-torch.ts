/**
 * qwen3-tiny on the CPU: this program and transformers + torch in turn, in the same minutes, on the same cores.
 *
 *   ORACLE_PYTHON=/path/to/python node dist/bench/cpu-vs-torch.js [--rounds 3] [--steps 23] [--threads 2]
 *
 * The Python needs torch and transformers. Rates are medians over the updates of all rounds, 3 of each left out. A round
 * during which others took more than a part of the cores (--others, 0.1) is repeated.
 */
import { cpus, loadavg } from 'node:os';
import { setTimeout } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { measureOurs, ourCommand, rates } from './cpu-train.js';
import { watchCores } from './cores.js';
import { jsonLines, onCores, type Measurement, type StepShape } from './steps.js';

const TORCH_SCRIPT = fileURLToPath(new URL('../../bench/torch_cpu_train.py', import.meta.url));
const WARM_UP = 3;
/** Rounds that may be repeated because other programs were busy, and how long the cores are watched before each. */
const MOST_REPEATED = 100;
const PAUSE_MS = 2_000;

function torchCommand(shape: StepShape, attention: string): string[] {
  const { microBatch, globalBatch, seqLength, threads, steps } = shape;
  const batch = `--micro-batch ${microBatch} --global-batch ${globalBatch} --seq-length ${seqLength}`;
  return `${batch} --threads ${threads} --steps ${steps} --attention ${attention}`.split(' ');
}

async function measureTorch(python: string, shape: StepShape, attention: string): Promise<Measurement> {
  const lines = await jsonLines(onCores(shape.threads, [python, TORCH_SCRIPT, ...torchCommand(shape, attention)]));
  const steps = lines.filter((line) => 'step' in line);
  return {
    times: steps.map((line) => Number(line['step_time_ms'])),
    firstLoss: Number(steps[0]?.['loss']),
    lastLoss: Number(steps.at(-1)?.['loss']),
    versions: String(lines.at(-1)?.['versions']),
  };
}

/** Watches the cores until others leave them alone. */
async function waitForQuiet(limit: number): Promise<void> {
  while ((await watchCores(() => setTimeout(PAUSE_MS))).others > limit);
}

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '3' },
    steps: { type: 'string', default: '23' },
    threads: { type: 'string', default: '2' },
    'micro-batches': { type: 'string', default: '8,1' },
    attention: { type: 'string', default: 'sdpa' },
    others: { type: 'string', default: '0.1' },
  },
});
const python = process.env['ORACLE_PYTHON'];
if (python === undefined) {
  console.error('set ORACLE_PYTHON to a Python that has torch and transformers');
  process.exit(4);
}

const threads = Number(values.threads);
console.log(
  `${cpus()[0]?.model ?? 'unknown CPU'}, ${cpus().length} cores, ${threads} threads used, load ${loadavg()[0]?.toFixed(1)} before, ${new Date().toISOString()}`,
);
for (const microBatch of values['micro-batches'].split(',').map(Number)) {
  const shape: StepShape = { microBatch, globalBatch: 8, seqLength: 256, threads, steps: Number(values.steps) };
  const ours: Measurement[] = [];
  const torch: Measurement[] = [];
  const shares: number[] = [];
  let repeated = 0;
  while (ours.length < Number(values.rounds) && repeated < MOST_REPEATED) {
    await waitForQuiet(Number(values.others));
    const a = await watchCores(() => measureOurs(shape));
    const b = await watchCores(() => measureTorch(python, shape, values.attention));
    const others = Math.max(a.others, b.others);
    if (others > Number(values.others)) {
      repeated++;
      continue;
    }
    ours.push(a.result);
    torch.push(b.result);
    shares.push(others);
  }
  if (ours.length === 0) throw new Error(`other programs took more than ${values.others} of the cores in every round`);
  console.log(
    `\nmicro-batch ${microBatch} of ${shape.globalBatch} x ${shape.seqLength} tokens, ${ours.length} rounds of ${shape.steps} updates; others took ${shares.map((share) => `${(share * 100).toFixed(0)} %`).join(', ')} of the cores; ${repeated} rounds repeated`,
  );
  const sides = [
    { name: 'mbridge', runs: ours, command: `mbridge ${ourCommand(shape).join(' ')}` },
    {
      name: 'torch',
      runs: torch,
      command: `bench/torch_cpu_train.py ${torchCommand(shape, values.attention).join(' ')}`,
    },
  ];
  for (const { name, runs, command } of sides) {
    const rounds = runs.map(({ times }) => rates(times, shape, WARM_UP).median);
    const { median, range } = rates(
      runs.flatMap(({ times }) => times.slice(WARM_UP)),
      shape,
      0,
    );
    console.log(
      `${name.padEnd(8)} ${median} tokens/s (10-90 % ${range}; rounds ${rounds.join(', ')}), ${runs[0]?.versions}\n         ${command}`,
    );
  }
}

import type { Command } from 'commander';
import type { CheckResult } from '../../bench/check/check.js';
import { outputLine, type OutputFacts } from '../../outputs/line.js';
import { parseCount } from '../shared/run-options.js';

interface CheckFlags {
  readonly parts?: string;
  readonly only?: string;
  readonly fixtures?: string;
  readonly oracle?: string;
  readonly device: string;
  readonly nproc?: number;
  readonly ranksPerGpu: number;
  readonly json?: boolean;
}

/** `mbridge bench check`: trains small models whose results are known on every layout that this machine has GPUs for. */
export function addBenchCheck(bench: Command): void {
  bench
    .command('check')
    .description('train models whose results are known on every layout that fits, and compare')
    .option('--parts <list>', 'of fixtures, bits, layouts, precision, torch, sampled, failures; default: all')
    .option('--only <text>', 'checks whose name holds this')
    .option('--fixtures <folder>', "the oracle fixtures; default: this package's fixtures/")
    .option('--oracle <folder>', 'what bench/torch_bf16_oracle.py wrote, for the part torch')
    .option('--device <kind>', 'auto, cuda or cpu', 'auto')
    .option('--nproc <n>', 'most processes of a run; default: the GPUs, or 4 on a CPU', parseCount)
    .option('--ranks-per-gpu <n>', 'processes that share each GPU (dist.ranks_per_gpu)', parseCount, 1)
    .option('--json', 'one JSON object a line')
    .action(checkAll);
}

async function checkAll(flags: CheckFlags): Promise<void> {
  const { EXIT, MbridgeError } = await import('../../base/errors.js');
  const { PARTS } = await import('../../bench/check/parts.js');
  const { runChecks } = await import('../../bench/check/check.js');
  const { resolve, join } = await import('node:path');
  const { packageRoot } = await import('../../base/package-root.js');
  const { listenForSignals, signalExitCode } = await import('../../job/shared/stop-signals.js');
  const { formatTable } = await import('../shared/table.js');
  const known = Object.keys(PARTS) as (keyof typeof PARTS)[];
  const wanted = flags.parts?.split(',') ?? known;
  const unknown = wanted.filter((name) => !known.some((part) => part === name));
  if (unknown.length > 0) {
    throw new MbridgeError('usage', 'MB_USAGE', `no part ${unknown.join(', ')}`, {
      hint: `parts: ${known.join(', ')}`,
    });
  }
  const stop = new AbortController();
  listenForSignals((signal) => {
    stop.abort(signal);
    process.exitCode = signalExitCode(signal);
  });
  const { device, ranks } = await choosePlace(flags);
  const place = {
    device,
    ranks,
    ranksPerGpu: flags.ranksPerGpu,
    fixtures: resolve(flags.fixtures ?? join(packageRoot(), 'fixtures')),
    oracle: flags.oracle === undefined ? null : resolve(flags.oracle),
    stop: stop.signal,
  };
  const checks = known
    .filter((part) => wanted.includes(part))
    .flatMap((part) => PARTS[part](place))
    .filter(({ part, name }) => `${part} ${name}`.includes(flags.only ?? ''));
  if (checks.length === 0) {
    throw new MbridgeError(
      'usage',
      'MB_USAGE',
      `no check of ${wanted.join(', ')} has '${flags.only ?? ''}' in its name`,
      {
        hint: 'their names are like fixtures qwen3-tied tp2 pp1 dp1; without --only all of them run',
      },
    );
  }
  const results = await runChecks(checks, place, (result) => {
    if (flags.json) process.stdout.write(outputLine('check', jsonOf(result)));
    else process.stderr.write(`${result.verdict} ${result.part} ${result.name}\n`);
  });
  if (stop.signal.aborted) return;
  const count = (verdict: string): number => results.filter((result) => result.verdict === verdict).length;
  const sums = { passed: count('ok'), failed: count('failed'), skipped: count('skipped') };
  const ok = sums.failed === 0 && sums.passed > 0;
  if (flags.json) process.stdout.write(outputLine('result', { ok, device, ranks, ...sums }));
  else {
    process.stdout.write(formatTable([['part', 'check', 'measured', 'at most', 's', ''], ...results.flatMap(rowsOf)]));
    for (const { part, name, reason } of results.filter(({ verdict }) => verdict === 'failed')) {
      if (reason !== null) process.stdout.write(`\n${part} ${name}: ${reason}\n`);
    }
    process.stdout.write(
      `\n${sums.passed} passed, ${sums.failed} failed, ${sums.skipped} skipped on ${ranks} x ${device}\n`,
    );
  }
  process.exitCode = ok ? EXIT.ok : EXIT.internal;
}

function jsonOf({ seconds, ...result }: CheckResult): OutputFacts<'check'> {
  return { ...result, wall_s: Math.round(seconds * 1000) / 1000 };
}

/** A line for each measure; one for a check without. */
function rowsOf({ part, name, verdict, measures, seconds, reason }: CheckResult): string[][] {
  const time = seconds.toFixed(1);
  if (measures.length === 0) {
    return [[part, name, '', '', time, verdict === 'skipped' ? `skipped: ${reason ?? ''}` : verdict]];
  }
  return measures.map(({ what, value, bound }, i) => {
    const verdictHere = value <= bound ? 'ok' : 'FAILED';
    return [part, name, `${what} ${value.toExponential(2)}`, bound.toExponential(1), i === 0 ? time : '', verdictHere];
  });
}

async function choosePlace(flags: CheckFlags): Promise<{ device: 'cpu' | 'cuda'; ranks: number }> {
  const { MbridgeError } = await import('../../base/errors.js');
  const { chooseDevice, visibleGpus } = await import('../../engine/devices.js');
  const asked = flags.device;
  if (asked !== 'auto' && asked !== 'cuda' && asked !== 'cpu') {
    throw new MbridgeError('usage', 'MB_USAGE', `--device ${asked}`, { hint: 'auto, cuda or cpu' });
  }
  const device = chooseDevice({ dist: { device: asked } });
  const ranks =
    device === 'cuda' ? Math.min(flags.nproc ?? Infinity, visibleGpus() * flags.ranksPerGpu) : (flags.nproc ?? 4);
  return { device, ranks };
}

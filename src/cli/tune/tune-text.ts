import { shellWord } from '../../base/shell-word.js';
import type { RunConfig } from '../../config/schema.js';
import type { Ranking, RankedSetting } from '../../plan/rank-settings.js';
import { SETTING_KEYS, settingOf, type Setting } from '../../plan/settings.js';
import { predictionJson } from '../shared/prediction-text.js';
import { CONFIG_FLAGS, type RunOptions } from '../shared/run-options.js';
import { formatTable } from '../shared/table.js';
import type { Outcome } from './measure.js';

/** A setting with what is known of it. */
export interface TunedSetting {
  readonly ranked: RankedSetting;
  /** Undefined where it was not tried. */
  readonly outcome: Outcome | undefined;
}

/** All that is said in the end. */
export interface TuneReport {
  readonly name: string;
  readonly device: string;
  readonly ranks: number;
  readonly config: RunConfig;
  readonly ranking: Ranking;
  /** The fastest first: what was measured before what was only predicted. */
  readonly settings: readonly TunedSetting[];
  /** Whether all that were run failed: there is no reason to think that another one does not. */
  readonly failed: boolean;
  /** The command line of the run, to which a setting's flags are added. */
  readonly command: readonly string[];
  readonly seconds: number;
}

/** The fastest first: by what was measured, then by prediction; what failed last. */
export function inOrder(settings: readonly TunedSetting[]): TunedSetting[] {
  const stepOf = ({ ranked, outcome }: TunedSetting): readonly [group: number, ms: number] => {
    if (outcome?.kind === 'measured') return [0, outcome.measured.stepMs];
    return [outcome?.kind === 'failed' ? 2 : 1, ranked.prediction.stepMs];
  };
  return [...settings].sort((a, b) => {
    const [[groupA, msA], [groupB, msB]] = [stepOf(a), stepOf(b)];
    return groupA - groupB || msA - msB;
  });
}

/** `tp 2, dp 4, micro-batch 2, recompute none, sharding optim`: what differs from one process. */
export function settingText({ layout, setting }: RankedSetting): string {
  const { tp, cp, dp, pp, vpp } = layout;
  const sizes = Object.entries({ tp, cp, dp, pp, vp: vpp }).filter(([, size]) => size > 1);
  return [
    ...sizes.map(([name, size]) => `${name} ${size}`),
    `micro-batch ${setting.microBatch}`,
    `recompute ${recomputeText(setting)}`,
    `sharding ${setting.sharding}`,
  ].join(', ');
}

/** The table, and the command to use. */
export function tuneText(report: TuneReport, interrupted: boolean): string {
  const { name, device, ranks, config, ranking, settings, seconds } = report;
  const { global_batch_size: batch } = config.train;
  const head = ['tp', 'cp', 'dp', 'pp', 'vp', 'micro', 'recompute', 'sharding', '  GiB', 'predicted', 'measured'];
  const rows = settings.map(({ ranked, outcome }) => {
    const { setting, layout, neededBytes, prediction } = ranked;
    const { tp, cp, dp, pp, vpp } = layout;
    return [
      ...[tp, cp, dp, pp, vpp, setting.microBatch],
      ...[recomputeText(setting), setting.sharding, (neededBytes / 2 ** 30).toFixed(1).padStart(5)],
      Math.round(prediction.tokensPerSecond),
      measuredText(outcome),
    ];
  });
  const best = settings[0];
  const use =
    best === undefined || report.failed
      ? []
      : ['', 'use:', ...foldCommand([...report.command, ...flagsOf(config, best.ranked.setting)])];
  const known = best === undefined ? 'no setting that fits was' : 'what was';
  const end = interrupted ? [`interrupted: ${known} known by then`, ''] : [];
  const plans = `${ranking.considered} settings, ${ranking.planned} planned, in ${seconds.toFixed(1)} s`;
  return [
    `${name} on ${ranks} ranks of ${device}: ${batch} x ${config.model.seq_length} tokens an update`,
    `${plans}; tokens/s of all ranks`,
    '',
    ...end,
    ...(best === undefined ? [] : [formatTable([head, ...rows]).trimEnd(), ...use, '']),
  ].join('\n');
}

/** `+mlp`: selective, with the products of the MLP. */
function recomputeText({ recompute, modules }: Setting): string {
  return recompute === 'selective' && modules.includes('mlp') ? '+mlp' : recompute;
}

function measuredText(outcome: Outcome | undefined): string {
  if (outcome?.kind === 'measured') {
    return Math.round(outcome.measured.tokensPerSecond).toLocaleString('en-US').padStart('measured'.length);
  }
  // Why is said as it fails.
  return outcome?.kind === 'failed' ? outcome.kind : '';
}

/** The same for programs. */
export function tuneJson(
  report: TuneReport,
  interrupted: boolean,
): { readonly type: string; readonly [key: string]: unknown } {
  const { name, device, ranks, ranking, settings, seconds } = report;
  return {
    ...{ type: 'tune', name, device, ranks, considered: ranking.considered, planned: ranking.planned },
    ...{ search_s: seconds, interrupted, command: report.command },
    settings: settings.map(({ ranked, outcome }) => {
      const { setting, layout, neededBytes, prediction } = ranked;
      return {
        ...{ tp: layout.tp, cp: layout.cp, dp: layout.dp, pp: layout.pp, vp: layout.vpp },
        ...{ micro_batch_size: setting.microBatch, recompute_granularity: setting.recompute },
        ...(setting.recompute === 'selective' ? { recompute_modules: setting.modules } : {}),
        data_parallel_sharding_strategy: setting.sharding,
        planned_bytes: neededBytes,
        predicted: predictionJson(prediction),
        measured:
          outcome?.kind === 'measured'
            ? { step_time_ms: outcome.measured.stepMs, tokens_per_s: outcome.measured.tokensPerSecond }
            : null,
        ...(outcome?.kind === 'failed' ? { failed: outcome.reason } : {}),
        flags: flagsOf(report.config, setting),
      };
    }),
  };
}

/** What a setting changes of a configuration, as flags and `section.key=value` texts of any command that takes a run. */
function flagsOf(config: RunConfig, setting: Setting): string[] {
  const now = settingOf(config);
  const changed = (Object.keys(SETTING_KEYS) as (keyof Setting)[]).filter(
    (key) => String(setting[key]) !== String(now[key]),
  );
  return changed.flatMap((key) => {
    const path = SETTING_KEYS[key];
    const flag = CONFIG_FLAGS.find((each) => each.path === path)?.flag;
    if (key === 'modules') return [`${path}=[${setting.modules.join(',')}]`];
    if (key === 'vpp' && setting.vpp === 1) return [`${path}=null`];
    return flag === undefined ? [`${path}=${setting[key]}`] : [flag, String(setting[key])];
  });
}

/** The run that `mbridge tune` was asked about, without a setting: what is set there stays. */
export function commandOf(args: readonly string[], options: RunOptions & { readonly nnodes?: number }): string[] {
  const { nproc, nnodes = 1, config: file } = options;
  const given = CONFIG_FLAGS.flatMap(({ flag, option }) => {
    const value = options[option];
    return typeof value === 'string' ? [flag, value] : [];
  });
  return [
    ...['mbridge', 'pretrain', ...args],
    ...(file === undefined ? [] : ['--config', file]),
    ...['--nproc', String(nproc)],
    ...(nnodes === 1 ? [] : ['--nnodes', String(nnodes), '--node-rank', 'R', '--rdzv-endpoint', 'HOST:PORT']),
    ...(options['device'] === undefined ? [] : ['--device', String(options['device'])]),
    ...given,
  ];
}

/** Lines of at most 80 characters that a shell reads as one. */
function foldCommand(words: readonly string[]): string[] {
  const lines: string[] = [];
  for (const word of words.map(shellWord)) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + word.length + 3 <= 80) lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(`  ${word}`);
  }
  return lines.map((line, i) => (i === lines.length - 1 ? line : `${line} \\`));
}

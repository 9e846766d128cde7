import type { CheckpointOrigin } from './origin.js';
import type { CheckpointSummary, RootSummary } from '../../checkpoint/run/inspect.js';

/** What `mbridge checkpoint inspect` prints for people, of a folder of checkpoints. */
export function rootText({ folder, latest, checkpoints, unfinished }: RootSummary): string {
  const lines = checkpoints.map(
    ({ name, bytes, saved }) => `  ${name}  ${megabytes(bytes)}  ${saved}${name === latest ? '  <- latest' : ''}`,
  );
  const rest = unfinished.map((name) => `  ${name}  not committed: a save or a removal that did not end`);
  return `${[folder, ...lines, ...rest].join('\n')}\n`;
}

/** The same of one. */
export function summaryText(found: CheckpointSummary & CheckpointOrigin): string {
  const { folder, state, parameters, tensors, files, bytes, optimizer_bytes: moments, saved, list, run, loss } = found;
  const types = Object.entries(found.dtypes).map(([kind, dtypes]) => `${kind} ${dtypes.join(' and ')}`);
  const { step, consumed_samples: samples, precision, optimizer, layout, versions } = state;
  const pairs = (record: Readonly<Record<string, unknown>>): string =>
    Object.entries(record)
      .map(([key, value]) => `${key} ${value}`)
      .join(', ');
  const rows = [
    ['step', `${step} (${samples} samples)${loss === null ? '' : `, loss ${loss.toFixed(4)}`}`],
    ...(run === null ? [] : [['run', run]]),
    ['parameters', `${parameters.toLocaleString('en-US')} in ${tensors} tensors`],
    ['types', types.join(', ')],
    ['files', `${files}, ${megabytes(bytes)}, saved ${saved}`],
    ['precision', precision ?? 'as imported'],
    [
      'optimizer',
      optimizer === null
        ? 'none (weights alone)'
        : `${optimizer.name}, ${optimizer.updates} updates, lr ${optimizer.lr}; ${megabytes(moments)} of these files`,
    ],
    ['saved by', layout === null ? 'an import' : pairs(layout)],
    ['model', pairs(state.head === undefined ? state.model : { head: state.head, ...state.model })],
    ['versions', pairs(versions)],
  ].map(([key, value]) => `  ${String(key).padEnd(10)}  ${value}`);
  const named = (list ?? []).map(
    ({ name, dtype, shape, pieces }) => `  ${name}  ${dtype} [${shape.join(', ')}]  ${pieces} pieces`,
  );
  return `${[folder, ...rows, ...named].join('\n')}\n`;
}

/** `12.3 MB` */
export function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}

import type { PairSummary } from '../../data/prepare/inspect.js';
import { formatTable } from '../shared/table.js';

/** What `mbridge data inspect` prints for people. */
export function summaryText({ prefix, sidecar, lengths, range, ...summary }: PairSummary): string {
  const count = (n: number): string => n.toLocaleString('en-US');
  const what = sidecar?.content === 'chat' ? 'conversations' : 'documents';
  const all = summary.looked === summary.documents ? '' : ` (of ${count(summary.looked)} ${what})`;
  const rows = [
    [what, count(summary.documents)],
    ['tokens', `${count(summary.tokens)}, ${summary.dtype}`],
    ['ids', range === null ? 'none' : `${range[0]} to ${range[1]}${all}`],
    [
      'lengths',
      lengths === null ? 'none' : `${count(lengths.least)} to ${count(lengths.most)}, median ${count(lengths.median)}`,
    ],
    [
      'tokenizer',
      sidecar === null
        ? 'not known (no .json beside the pair)'
        : `${sidecar.tokenizer.name}, ${count(sidecar.tokenizer.vocab_size)} tokens`,
    ],
    ['ended by', sidecar === null ? 'not known' : `${sidecar.eod ?? 'nothing'}`],
    [
      'made of',
      sidecar === null ? 'not known' : `${count(sidecar.inputs.length)} files, by mbridge ${sidecar.mbridge}`,
    ],
  ].map(([key, value]) => `  ${String(key).padEnd(what.length)}  ${value}`);
  const bins = summary.histogram.map(
    ({ from, to, count: n }) => [from === to ? `${from}` : `${from} to ${to}`, n] as const,
  );
  const histogram = bins.length === 0 ? '' : formatTable([['tokens', what], ...bins]);
  const samples = summary.samples.map(({ document, text }) => `${document}: ${JSON.stringify(text)}\n`).join('');
  return `${[prefix, ...rows].join('\n')}\n${histogram}${samples}`;
}

import { formatRanks } from '../../base/format-ranks.js';

type Lists = readonly (readonly number[])[];

/** Groups of a kind that are shown, and characters of a line. */
const MOST = 16;
const WIDTH = 80;

/** Groups that only experts have: shown where there are expert-parallel ranks. */
const EXPERT_FIELDS: readonly string[] = ['ep', 'expertTp', 'tpEp', 'tpEpPp', 'expertDp', 'intraExpertDp'];

/** The groups of a grid for people: kinds that have the same groups in one row, in lines that a terminal holds. */
export function groupsText(groups: Readonly<Record<string, Lists>>, experts: boolean): string {
  const kinds = new Map<string, { names: string[]; lists: Lists }>();
  for (const [name, lists] of Object.entries(groups)) {
    if (!experts && EXPERT_FIELDS.includes(name)) continue;
    const key = JSON.stringify(lists);
    const kind = kinds.get(key) ?? { names: [], lists };
    kind.names.push(name);
    kinds.set(key, kind);
  }
  return [...kinds.values()].map(({ names, lists }) => `${names.join(', ')}\n${wrapped(wordsOf(lists))}\n`).join('');
}

function wordsOf(lists: Lists): string[] {
  if (lists.length === 0) return ['none'];
  if (lists.every(({ length }) => length === 1)) {
    return [`each alone: ${formatRanks(lists.flat())}`];
  }
  const words = lists.slice(0, MOST).map((list) => `[${rangeOf(list)}]`);
  const more = lists.length - words.length;
  return more > 0 ? [...words, `and ${more} more (--json has all)`] : words;
}

/** `0-3` of ranks in a row, `0 4 8 12` of others. */
function rangeOf(list: readonly number[]): string {
  const [first = 0] = list;
  const inRow = list.length > 2 && list.every((rank, i) => rank === first + i);
  return inRow ? `${first}-${list.at(-1)}` : list.join(' ');
}

function wrapped(words: readonly string[]): string {
  const lines: string[] = [];
  for (const word of words) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + 1 + word.length <= WIDTH) lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(`  ${word}`);
  }
  return lines.join('\n');
}

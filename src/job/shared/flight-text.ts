import { formatRanks } from '../../base/format-ranks.js';
import type { FlightCall, FlightGroup, FlightRecord, FlightTransfer } from './flight-record.js';

/** How many ranks that hold others up are told of one by one. */
const MOST_TOLD = 3;

/** A call that has not finished on some ranks. */
interface Wait {
  readonly group: FlightGroup;
  readonly number: number;
  /** Whether it is a p2p call, which is one rank's alone. */
  readonly exchange: boolean;
  readonly calls: Map<number, FlightCall>;
  /** Members that have not entered it, or not done their part of it. */
  readonly missing: number[];
}

/**
 * Who waits in what, and for whom, in one sentence: of the call that holds the others up, as the ranks' records show it.
 * Ranks without a record are left out. Undefined where nobody waits, and no rank died.
 * @param died ranks that wait for nothing any more, whatever they were in
 * @param silent ranks that had to be killed, for they did not end as others did
 */
export function flightSentence(
  records: readonly FlightRecord[],
  died: readonly number[] = [],
  silent: readonly number[] = [],
): string | undefined {
  const ranks: Ranks = { byRank: new Map(records.map((record) => [record.rank, record])), died: new Set(died) };
  const waits = waitsOf(ranks);
  for (const wait of waits) {
    const text = disagreement(wait, ranks);
    if (text !== undefined) return text;
  }
  const most = (some: readonly Wait[]): Wait | undefined => [...some].sort((a, b) => b.calls.size - a.calls.size)[0];
  const held = waits.filter(({ missing }) => missing.length > 0);
  // Who waits for others is not to blame; who is in a call that all have entered is.
  const excused = new Set(held.flatMap(({ calls }) => [...calls.keys()]));
  const cause = most(held.filter(({ missing }) => missing.some((rank) => !excused.has(rank))));
  if (cause !== undefined) {
    const causes = cause.missing.filter((rank) => !excused.has(rank));
    return `${describeWait(cause)}; ${describeMissing(cause, causes, ranks)}`;
  }
  if (held.length > 0) return `${held.slice(0, MOST_TOLD).map(describeWait).join('; ')}: they wait for each other`;
  const all = most(waits);
  if (all !== undefined) return describeStuck(all, silent, ranks);
  const last = died
    .flatMap((rank) => ranks.byRank.get(rank) ?? [])
    .filter(({ groups }) => groups.some(({ calls }) => calls.length > 0))
    .map((record) => lastOf(record));
  return last.length === 0 ? undefined : `nobody waits in a collective; ${last.slice(0, MOST_TOLD).join('; ')}`;
}

/** What is known. */
interface Ranks {
  readonly byRank: ReadonlyMap<number, FlightRecord>;
  readonly died: ReadonlySet<number>;
}

/** The unfinished calls, each once for all ranks that are in it. On a GPU the oldest of a group is the one that waits. */
function waitsOf(ranks: Ranks): Wait[] {
  const waits = new Map<string, Omit<Wait, 'missing'>>();
  for (const { rank, groups } of ranks.byRank.values()) {
    if (ranks.died.has(rank)) continue;
    for (const group of groups) {
      const call = group.calls.find(({ state }) => state !== 'finished');
      if (call === undefined) continue;
      const exchange = isExchange(call);
      const key = `${group.id} ${call.number} ${exchange ? rank : ''}`;
      const wait = waits.get(key) ?? { group, number: call.number, exchange, calls: new Map() };
      wait.calls.set(rank, call);
      waits.set(key, wait);
    }
  }
  return [...waits.values()].map((wait) => ({ ...wait, missing: missingOf(wait, ranks) }));
}

function isExchange({ op }: FlightCall): boolean {
  return op === 'p2p';
}

function groupOf(record: FlightRecord | undefined, { id }: FlightGroup): FlightGroup | undefined {
  return record?.groups.find((group) => group.id === id);
}

function missingOf({ group, number, exchange, calls }: Omit<Wait, 'missing'>, ranks: Ranks): number[] {
  const { byRank, died } = ranks;
  if (exchange) {
    const unmet = [...calls].flatMap(([rank, call]) => unmetTransfers(rank, call, group, ranks));
    return [...new Set(unmet.map(({ peer }) => peer))];
  }
  return group.ranks.filter((rank) => {
    if (calls.has(rank) || !byRank.has(rank)) return false;
    return died.has(rank) || !entered(byRank.get(rank), group, number);
  });
}

/** Number 0 is joining: who has the group has begun to. */
function entered(record: FlightRecord | undefined, group: FlightGroup, number: number): boolean {
  const own = groupOf(record, group);
  return own !== undefined && own.collectives >= number;
}

/** The messages that the other side has not come to: of those to receive, where there are any, for a send may not wait. */
function unmetTransfers(
  rank: number,
  { transfers }: FlightCall,
  group: FlightGroup,
  { byRank, died }: Ranks,
): FlightTransfer[] {
  const unmet = transfers.filter(({ kind, peer, number }) => {
    if (!byRank.has(peer)) return false;
    const theirs = groupOf(byRank.get(peer), group);
    const counts = kind === 'send' ? theirs?.received : theirs?.sent;
    return died.has(peer) || (counts?.[group.ranks.indexOf(rank)] ?? 0) < number;
  });
  const receives = unmet.filter(({ kind }) => kind === 'receive');
  return receives.length > 0 ? receives : unmet;
}

/** Of members that call different things under one number. */
function disagreement(wait: Wait, { byRank }: Ranks): string | undefined {
  const { group, number, exchange, calls } = wait;
  if (exchange) return undefined;
  const all = group.ranks.flatMap((rank) => {
    const found = groupOf(byRank.get(rank), group)?.calls.find((call) => call.number === number && !isExchange(call));
    const call = calls.get(rank) ?? found;
    return call === undefined ? [] : [{ rank, what: `${call.op}${sizeOf(call, group)}` }];
  });
  const byCall = new Map<string, number[]>();
  for (const { rank, what } of all) byCall.set(what, [...(byCall.get(what) ?? []), rank]);
  if (byCall.size < 2) return undefined;
  const parts = [...byCall].map(([what, ranks]) => `${rankNoun(ranks)} ${formatRanks(ranks)} called ${what}`);
  return `the members of ${groupName(group)} disagree about call #${number}: ${parts.join(', ')}`;
}

function describeWait({ group, number, exchange, calls }: Wait): string {
  const ranks = [...calls.keys()];
  const [first] = calls.values() as Iterable<FlightCall>;
  if (first === undefined) return '';
  const wait = `${rankNoun(ranks)} ${formatRanks(ranks)} ${ranks.length === 1 ? 'waits' : 'wait'}`;
  if (first.op === 'create') return `${wait} to join group ${groupName(group)}`;
  const numbered = `${first.op} #${number} of ${groupName(group)}`;
  if (!exchange) return `${wait} in ${numbered}${sizeOf(first)}`;
  const more = first.transfer_count > first.transfers.length ? ', ...' : '';
  return `${wait} in ${numbered} (${first.transfers.map(transferText).join(', ')}${more})`;
}

/** Of a call that all have entered: who did not give it up as the others did is stopped in it. */
function describeStuck(wait: Wait, silent: readonly number[], { byRank }: Ranks): string {
  const stuck = [...wait.calls.keys()].filter((rank) => silent.includes(rank));
  if (stuck.length === 0 || stuck.length === wait.calls.size)
    return `${describeWait(wait)}, which all have entered, and which has not finished`;
  const calls = new Map([...wait.calls].filter(([rank]) => !stuck.includes(rank)));
  const told = stuck.slice(0, MOST_TOLD).flatMap((rank) => {
    const record = byRank.get(rank);
    return record === undefined ? [] : `rank ${rank} does not answer in it: its ${lastCall(record)}`;
  });
  const rest = stuck.length - told.length;
  if (rest > 0) told.push(`${rest} more ranks neither`);
  return `${describeWait({ ...wait, calls })}, which all have entered; ${told.join('; ')}`;
}

function transferText({ kind, peer, number }: FlightTransfer): string {
  return kind === 'send' ? `send #${number} to rank ${peer}` : `receive #${number} from rank ${peer}`;
}

function describeMissing(wait: Wait, causes: readonly number[], ranks: Ranks): string {
  const { exchange, number, calls, group } = wait;
  const joins = [...calls.values()].some(({ op }) => op === 'create');
  const told = causes.slice(0, MOST_TOLD).map((rank) => {
    const record = ranks.byRank.get(rank);
    const absent = exchange ? unmetVerb(wait, rank, ranks) : joins ? 'never came' : 'never entered it';
    const verb = !exchange && ranks.died.has(rank) && entered(record, group, number) ? 'entered it and died' : absent;
    return `rank ${rank} ${verb}${record === undefined ? '' : `: its ${lastCall(record)}`}`;
  });
  const rest = causes.length - told.length;
  if (rest > 0) told.push(`${rest} more ranks neither`);
  return told.join('; ');
}

function unmetVerb({ calls, group }: Wait, peer: number, ranks: Ranks): string {
  const unmet = [...calls].flatMap(([rank, call]) => unmetTransfers(rank, call, group, ranks));
  return unmet.some(({ kind, peer: other }) => other === peer && kind === 'receive')
    ? 'never sent it'
    : 'never received it';
}

function lastOf(record: FlightRecord): string {
  return `rank ${record.rank}'s ${lastCall(record)}`;
}

/** `last was reduce_scatter #40 of dp [0,2], finished 31 s ago (in the optimizer of update 17 for 31 s)`. */
function lastCall(record: FlightRecord): string {
  const all = record.groups.flatMap((group) => group.calls.map((call) => ({ group, call })));
  const [last] = all.sort((a, b) => a.call.entered_s_ago - b.call.entered_s_ago);
  const where = phaseText(record);
  if (last === undefined) return `record has no call${where}`;
  const { call, group } = last;
  const name =
    call.op === 'create' ? `joining group ${groupName(group)}` : `${call.op} #${call.number} of ${groupName(group)}`;
  const since =
    call.state === 'finished'
      ? `finished ${secondsText(call.ended_s_ago ?? 0)} ago`
      : `entered ${secondsText(call.entered_s_ago)} ago and not finished`;
  return `last was ${name}, ${since}${where}`;
}

function phaseText({ phase, step, phase_s }: FlightRecord): string {
  if (phase === '') return '';
  const update = step === 0 ? '' : ` of update ${step}`;
  return ` (in ${phase}${update} for ${secondsText(phase_s)})`;
}

function secondsText(seconds: number): string {
  return seconds < 10 ? `${seconds.toFixed(1)} s` : `${Math.round(seconds)} s`;
}

function rankNoun({ length }: readonly number[]): string {
  return length === 1 ? 'rank' : 'ranks';
}

function groupName({ name, ranks, size }: FlightGroup): string {
  const members = size > 16 ? `${ranks.slice(0, 8).join(',')},...; ${size} ranks` : ranks.join(',');
  return `${name} [${members}]`;
}

/** ` (4096 bf16, sum)`; nothing for a call without elements. */
function sizeOf(call: FlightCall, group?: FlightGroup): string {
  const { op, count, dtype, argument } = call;
  if (count === 0) return '';
  const reduces = op === 'all_reduce' || op === 'reduce_scatter';
  const how = reduces ? `, ${argument === 1 ? 'max' : 'sum'}` : '';
  const from = op === 'broadcast' && group !== undefined ? ` from rank ${group.ranks[argument] ?? argument}` : '';
  return ` (${count} ${dtype}${how}${from})`;
}

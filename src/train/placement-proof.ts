import { MbridgeError } from '../base/errors.js';
import { formatRanks } from '../base/format-ranks.js';
import type { ParameterSpec } from '../model/parameters/parameter.js';
import { areaOf, contains, tilingProblem, wholeOf } from '../model/parameters/rectangle.js';
import type { PlacedBucket, PlacedRank, Placement } from './placement-plan.js';

/**
 * Proves of a plan, before anything runs, that every parameter is held once in all, that its gradient is summed over the
 * ranks that compute parts of it and over no others, and that norm and tokens are counted once. A wrong group or a
 * missing sum raises no error where it runs: the loss alone would drift.
 * @param only the rank whose sums are looked at; by default all of them
 * @throws MbridgeError MB_PLACEMENT_PLAN (exit 1) naming the parameter, what was expected and what was found
 */
export function provePlacement(placement: Placement, only?: number): void {
  const proof = new PlacementProof(placement);
  proof.coverage();
  for (const rank of placement.ranks.filter((each) => only === undefined || each.rank === only)) {
    proof.gradients(rank);
    proof.totals(rank);
  }
  proof.norm();
}

/** A parameter on one rank, with the bucket that it is in. */
interface Held {
  readonly rank: PlacedRank;
  readonly bucket: PlacedBucket;
  readonly spec: ParameterSpec;
}

class PlacementProof {
  readonly #placement: Placement;
  readonly #byRank: ReadonlyMap<number, PlacedRank>;
  /** By name: who holds some of the parameter, of the ranks that are first in dp and cp, since the others hold the same. */
  readonly #held = new Map<string, Held[]>();
  /** Of each [tp, pp]: the ranks that differ in dp and cp alone. */
  readonly #replicas = new Map<string, number[]>();
  /** The ranks whose contributions are in a bucket's gradient after a sum over these ranks, by the sum and the bucket. */
  readonly #summed = new Map<readonly number[], Map<string, readonly number[]>>();
  /** Of what a bucket holds: each parameter whose gradient is to be summed over other ranks than those before. */
  readonly #kinds = new Map<readonly ParameterSpec[], { spec: ParameterSpec; expected: readonly number[] }[]>();
  /** Those whose totals were looked at. */
  readonly #counted = new Set<readonly number[]>();

  constructor(placement: Placement) {
    this.#placement = placement;
    this.#byRank = new Map(placement.ranks.map((rank) => [rank.rank, rank]));
    for (const rank of placement.ranks) {
      const { at } = rank;
      const replicas = this.#replicas.get(place(at)) ?? [];
      replicas.push(rank.rank);
      this.#replicas.set(place(at), replicas);
      if (at.dp !== 0 || at.cp !== 0) continue;
      for (const bucket of rank.buckets) {
        for (const spec of bucket.parameters) {
          const held = this.#held.get(spec.name) ?? [];
          held.push({ rank, bucket, spec });
          this.#held.set(spec.name, held);
        }
      }
    }
  }

  /** Every parameter is on one stage, a tied one on the first and the last; the tp ranks there hold it whole, or each its part. */
  coverage(): void {
    const { parameters, stages, tied } = this.#placement;
    const known = new Set(parameters.map(({ name }) => name));
    for (const [name, [first]] of this.#held) {
      if (!known.has(name))
        throw refuse(name, `rank ${first?.rank.rank} holds it, and the model has none of that name`);
    }
    for (const { name, shape } of parameters) {
      const held = this.#held.get(name) ?? [];
      const found = [...new Set(held.map(({ rank }) => rank.at.pp))];
      const expected = name === tied ? [0, stages - 1] : found.slice(0, 1);
      if (held.length === 0) throw refuse(name, 'no rank holds it');
      if (!same(found, expected)) {
        const wanted = name === tied ? `${formatRanks(expected)}, for it is tied` : 'one alone';
        throw refuse(name, `the pipeline stages ${formatRanks(found)} hold it; expected ${wanted}`);
      }
      const whole = wholeOf(shape);
      for (const stage of found) {
        const here = held.filter(({ rank, spec }) => rank.at.pp === stage && areaOf(spec) > 0);
        if (here.every(({ spec }) => contains(spec, whole))) continue;
        const problem = tilingProblem(
          whole,
          here.map(({ spec }) => spec),
        );
        if (problem !== undefined) throw refuse(name, `its parts on the tp ranks of stage ${stage}: ${problem}`);
      }
    }
  }

  /** The gradient that a rank updates from is the sum over all that compute a part of it, each once. */
  gradients(rank: PlacedRank): void {
    for (const bucket of rank.buckets) {
      if (!bucket.trainable) continue;
      const found = this.#contributions(rank, bucket, bucket.sums.length);
      for (const { spec, expected } of this.#kindsOf(rank, bucket)) {
        if (same(found, expected)) continue;
        const over = bucket.sums.map(({ group, ranks }) => `${group} [${ranks.join(',')}]`).join(' and ');
        const text = `its gradient on rank ${rank.rank} is summed over ${over}, so over ${ranksText(found)}; expected ${ranksText(expected)}`;
        const part = this.#placement.partOnTp(spec.name);
        const why = part === null ? '' : `, for each tp rank computes a part of it (${part})`;
        throw refuse(spec.name, `${text}${why}`, { bucket: bucket.name, rank: rank.rank, found, expected });
      }
    }
  }

  /** Every element is in the norm once. */
  norm(): void {
    for (const [name, held] of this.#held) {
      for (const { spec, bucket } of held) {
        if (!bucket.trainable || areaOf(spec) === 0) continue;
        const holders = held.filter((other) => samePiece(other.spec, spec));
        const counting = holders.filter((other) => other.bucket.counted).map(({ rank }) => rank.rank);
        if (counting.length === 1) continue;
        const of = ranksText(holders.map(({ rank }) => rank.rank));
        const found = counting.length === 0 ? 'no rank counts it' : `${ranksText(counting)} count it`;
        throw refuse(name, `${found} in the gradient norm, of ${of} that hold the same; expected one`);
      }
    }
  }

  /** The loss and the tokens of every sample, and of every part of one, are counted once. */
  totals({ rank, totals }: PlacedRank): void {
    if (this.#counted.has(totals.ranks)) return;
    this.#counted.add(totals.ranks);
    const counts = new Map<string, number[]>();
    for (const { at } of this.#placement.ranks) counts.set(`${at.dp} ${at.cp}`, []);
    for (const member of totals.ranks) {
      const other = this.#byRank.get(member);
      if (other?.totals.counted === true) counts.get(`${other.at.dp} ${other.at.cp}`)?.push(member);
    }
    for (const [at, ranks] of counts) {
      if (ranks.length === 1) continue;
      const [dp, cp] = at.split(' ');
      const found = ranks.length === 0 ? 'by no rank' : `by ${ranksText(ranks)}`;
      throw refuse(
        'loss and tokens',
        `on rank ${rank} those of dp ${dp}, cp ${cp} are counted ${found}; expected by one`,
      );
    }
  }

  /** Of a rank's bucket. */
  #kindsOf(
    rank: PlacedRank,
    { parameters }: PlacedBucket,
  ): readonly { spec: ParameterSpec; expected: readonly number[] }[] {
    const known = this.#kinds.get(parameters);
    if (known !== undefined) return known;
    const kinds = new Map<string, { spec: ParameterSpec; expected: readonly number[] }>();
    for (const spec of parameters) {
      if (areaOf(spec) === 0) continue;
      const holders = this.#holders(rank, spec);
      const key = holders.join();
      if (kinds.has(key)) continue;
      const expected = holders.flatMap((at) => this.#replicas.get(at) ?? []).sort((a, b) => a - b);
      kinds.set(key, { spec, expected });
    }
    const found = [...kinds.values()];
    this.#kinds.set(parameters, found);
    return found;
  }

  /** The ranks whose gradients of this piece are to be added up: all that hold it, but for tp ranks that compute the same; as their places. */
  #holders(rank: PlacedRank, spec: ParameterSpec): string[] {
    const holders = (this.#held.get(spec.name) ?? []).filter((other) => samePiece(other.spec, spec));
    const partial = this.#placement.partOnTp(spec.name) !== null;
    return holders.filter(({ rank: { at } }) => partial || at.tp === rank.at.tp).map((other) => place(other.rank.at));
  }

  /** Sorted; a rank twice whose gradient would be added twice. */
  #contributions(rank: PlacedRank, bucket: PlacedBucket, sums: number): readonly number[] {
    const sum = bucket.sums[sums - 1];
    if (sum === undefined) return [rank.rank];
    const memo = this.#summed.get(sum.ranks) ?? new Map<string, readonly number[]>();
    this.#summed.set(sum.ranks, memo);
    const key = `${sum.group} ${bucket.name}`;
    const known = memo.get(key);
    if (known !== undefined) return known;
    const found = sum.ranks
      .flatMap((member) => {
        const other = this.#byRank.get(member);
        const theirs = other?.buckets.find(({ name }) => name === bucket.name);
        // What a rank without the bucket would add is not this gradient.
        if (other === undefined || theirs === undefined) return [member];
        const at = theirs.sums.findIndex(({ group }) => group === sum.group);
        return this.#contributions(other, theirs, at < 0 ? theirs.sums.length : at);
      })
      .sort((a, b) => a - b);
    memo.set(key, found);
    return found;
  }
}

function place({ tp, pp }: PlacedRank['at']): string {
  return `${tp} ${pp}`;
}

function same(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((x, i) => x === b[i]);
}

function samePiece(a: ParameterSpec, b: ParameterSpec): boolean {
  return contains(a, b) && contains(b, a);
}

function ranksText(ranks: readonly number[]): string {
  const each = [...new Set(ranks)];
  const twice = each.length === ranks.length ? '' : ', some of them more than once';
  return `${each.length === 1 ? 'rank' : 'ranks'} ${formatRanks(each)}${twice}`;
}

function refuse(parameter: string, found: string, details: Record<string, unknown> = {}): MbridgeError {
  return new MbridgeError('internal', 'MB_PLACEMENT_PLAN', `${parameter}: ${found}`, {
    hint: 'this is a fault of the plan, not of the configuration: please report it with the output of `mbridge show-config`',
    details: { parameter, ...details },
  });
}

import { DTYPES } from '../../engine/dtype.js';
import { OPS } from '../../engine/op-table.js';

/** The least that a call must do: each input read once, each output written once, and its multiplications. */
export interface CallCost {
  /** What is timed together: the op, and for products their sizes. */
  readonly name: string;
  readonly bytes: number;
  /** Of products and attention; 0 elsewhere, where bytes decide. */
  readonly flops: number;
}

/** A tensor as the binding is given it. */
interface Operand {
  readonly arena: number;
  readonly offset: number;
  readonly bytes: number;
  readonly dtype: number;
}

type Scalars = Readonly<Record<string, number>>;
type Operands = Readonly<Record<string, Operand>>;

/** Where bytes or multiplications do not follow from what the op says of its tensors. */
interface Exception {
  readonly bytes?: (t: Operands, s: Scalars) => number;
  readonly flops?: (s: Scalars) => number;
  /** Added to the name. */
  readonly detail?: (t: Operands, s: Scalars) => string;
}

const at = (s: Scalars, name: string): number => s[name] ?? 0;
const size = (t: Operands, name: string): number => t[name]?.bytes ?? 0;

/** Two products over the pairs of query and key that causality leaves. */
function attentionFlops(s: Scalars): number {
  const [queries, keys, offset] = [at(s, 'sq'), at(s, 'skv'), at(s, 'offset')];
  const pairs = Math.min(queries * keys, Math.max(0, queries * offset + queries ** 2 / 2));
  return 4 * at(s, 'b') * at(s, 'hq') * pairs * at(s, 'd');
}

/** Of a query and a key: what is given is views, between whose rows others may lie. */
function attentionBytes(t: Operands, s: Scalars): number {
  const positions = at(s, 'sq') * at(s, 'hq') + at(s, 'skv') * at(s, 'hkv');
  return at(s, 'b') * positions * at(s, 'd') * (t['q']?.dtype === DTYPES.f32.code ? 4 : 2);
}

/** What a product of operands of few bits is written to, and whether it is added there. */
function into(t: Operands, s: Scalars): string {
  const wider = t['D']?.dtype === DTYPES.f32.code && t['A']?.dtype !== DTYPES.f32.code;
  return `${wider ? ' to f32' : ''}${at(s, 'beta') === 0 ? '' : ' +='}`;
}

const EXCEPTIONS: Partial<Record<keyof typeof OPS, Exception>> = {
  gemm: {
    flops: (s) => 2 * at(s, 'm') * at(s, 'n') * at(s, 'k'),
    detail: (t, s) => {
      const transposes = `${at(s, 'ta') ? 'T' : 'N'}${at(s, 'tb') ? 'T' : 'N'}`;
      return `${at(s, 'm')}x${at(s, 'n')}x${at(s, 'k')} ${transposes}${into(t, s)}`;
    },
  },
  gemmFp8: {
    // As many of bf16, by whose rate they are judged, take as long at the published peaks: half of them.
    flops: (s) => at(s, 'm') * at(s, 'n') * at(s, 'k'),
    bytes: (t, s) =>
      ['A', 'SA', 'B', 'SB'].reduce((sum, name) => sum + size(t, name), 0) + size(t, 'D') * (1 + at(s, 'beta')),
    detail: (t, s) => `${at(s, 'm')}x${at(s, 'n')}x${at(s, 'k')}${into(t, s)}`,
  },
  rmsnormBwd: {
    bytes: (t, s) =>
      size(t, 'dy') + size(t, 'x') + size(t, 'rstd') + size(t, 'dx') * (1 + at(s, 'accumulate_dx')) + 2 * size(t, 'dw'),
  },
  qknormRopeBwd: {
    // v is left alone: only the query and key heads are read, and written back.
    bytes: (t, s) => {
      const part = (at(s, 'hq') + at(s, 'hkv')) / (at(s, 'hq') + 2 * at(s, 'hkv'));
      const angles = size(t, 'table') + size(t, 'positions');
      return part * (2 * size(t, 'dqkv') + size(t, 'qkv')) + angles + size(t, 'rstd');
    },
  },
  attentionFwd: { flops: attentionFlops, bytes: (t, s) => 2 * attentionBytes(t, s) + size(t, 'lse') },
  // Five products to the forward's two.
  attentionBwd: {
    flops: (s) => 2.5 * attentionFlops(s),
    bytes: (t, s) => 4 * attentionBytes(t, s) + size(t, 'lse'),
  },
  // As many rows as there are tokens, not the whole table.
  embedFwd: { bytes: (t) => size(t, 'ids') + 2 * size(t, 'out') },
  embedBwd: {
    bytes: (t, s) => {
      const rows = Math.min(at(s, 'T'), at(s, 'vrows'));
      return size(t, 'ids') + size(t, 'order') + size(t, 'dout') + 2 * 4 * at(s, 'h') * rows;
    },
  },
  ceGrad: {
    bytes: (t) =>
      2 * size(t, 'logits') +
      ['targets', 'mask', 'gmax', 'sums', 'rowloss'].reduce((sum, name) => sum + size(t, name), 0),
  },
  sumsq: { bytes: (t) => size(t, 'x') },
  copy2d: { bytes: (_, s) => 2 * at(s, 'rows') * at(s, 'row_bytes') },
  // In float32 the parameters are the output.
  adamw: {
    bytes: (t) => 6 * size(t, 'p') + size(t, 'g') + (t['out']?.offset === t['p']?.offset ? 0 : size(t, 'out')),
  },
};

const BY_NUMBER = Object.entries(OPS).map(([key, op]) => ({ op, exception: EXCEPTIONS[key as keyof typeof OPS] }));
const MOVES = { r: 1, w: 1, rw: 2, s: 0 } as const;

/**
 * The cost of an op from the binding's argument buffer, as it stands at the call.
 * @param nt tensors in it, four numbers each
 * @param ns scalars after them
 */
export function opCost(op: number, args: Float64Array, nt: number, ns: number): CallCost {
  const known = BY_NUMBER[op];
  if (known === undefined) return { name: `op ${op}`, bytes: 0, flops: 0 };
  const { op: declared, exception } = known;
  const given = operands(args, nt);
  const named = <T>(names: readonly string[], values: ArrayLike<T>): Record<string, T> =>
    Object.fromEntries(names.flatMap((name, i) => (i < values.length ? [[name, values[i] as T]] : [])));
  const tensors = named(Object.keys(declared.tensors), given);
  const scalars = named(declared.scalars, args.subarray(4 * nt, 4 * nt + ns));
  const moved = Object.entries(declared.tensors).map(([name, access]) => {
    return size(tensors, name) * MOVES[access.replace('?', '') as keyof typeof MOVES];
  });
  const detail = exception?.detail?.(tensors, scalars);
  return {
    name: detail === undefined ? declared.name : `${declared.name} ${detail}`,
    bytes: exception?.bytes?.(tensors, scalars) ?? moved.reduce((sum, bytes) => sum + bytes, 0),
    flops: exception?.flops?.(scalars) ?? 0,
  };
}

export function operands(args: Float64Array, count: number): Operand[] {
  return Array.from({ length: count }, (_, i) => {
    const [arena = -1, offset = 0, bytes = 0, dtype = 0] = args.subarray(4 * i, 4 * i + 4);
    return { arena, offset, bytes, dtype };
  });
}

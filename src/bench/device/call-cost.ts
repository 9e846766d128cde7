import { DTYPES } from '../../engine/dtype.js';

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

type Access = 'r' | 'w' | 'rw' | '-';
type Scalars = readonly number[];

/** An op of abi.h: how it uses each tensor, in order. `bytes` and `flops` where that does not follow from the tensors. */
interface OpCost {
  readonly name: string;
  readonly access?: readonly Access[];
  readonly bytes?: (t: readonly Operand[], s: Scalars) => number;
  readonly flops?: (s: Scalars) => number;
  /** Added to the name. */
  readonly detail?: (t: readonly Operand[], s: Scalars) => string;
}

const at = (s: Scalars, i: number): number => s[i] ?? 0;
const size = (t: readonly Operand[], i: number): number => t[i]?.bytes ?? 0;

/** Causal: half of the square. b s hq hkv d */
const attentionFlops = (s: Scalars): number => 2 * at(s, 0) * at(s, 2) * at(s, 1) ** 2 * at(s, 4);

/** By number of the op. */
const OPS: readonly OpCost[] = [
  {
    name: 'gemm',
    access: ['r', 'r', 'r', 'w'],
    flops: (s) => 2 * at(s, 0) * at(s, 1) * at(s, 2),
    detail: (t, s) => {
      const transposes = `${at(s, 3) ? 'T' : 'N'}${at(s, 4) ? 'T' : 'N'}`;
      const into = t[3]?.dtype === DTYPES.f32.code && t[0]?.dtype !== DTYPES.f32.code ? ' to f32' : '';
      return `${at(s, 0)}x${at(s, 1)}x${at(s, 2)} ${transposes}${into}${at(s, 10) === 0 ? '' : ' +='}`;
    },
  },
  { name: 'rmsnorm_fwd', access: ['r', 'r', 'w', 'w'] },
  { name: 'add_rmsnorm_fwd', access: ['r', 'r', 'r', 'w', 'w', 'w'] },
  {
    name: 'rmsnorm_bwd',
    bytes: (t, s) => size(t, 0) + size(t, 1) + size(t, 3) + size(t, 4) * (1 + at(s, 2)) + 2 * size(t, 5),
  },
  { name: 'rope_table', access: ['w'] },
  { name: 'qknorm_rope_fwd', access: ['r', 'r', 'r', 'r', 'r', 'w', 'w'] },
  {
    // v is left alone: only the query and key heads are read, and written back.
    name: 'qknorm_rope_bwd',
    bytes: (t, s) => {
      const part = (at(s, 1) + at(s, 2)) / (at(s, 1) + 2 * at(s, 2));
      return part * (2 * size(t, 0) + size(t, 1)) + size(t, 4) + size(t, 5) + size(t, 6);
    },
  },
  { name: 'attention_fwd', access: ['r', 'w', 'w', '-'], flops: attentionFlops },
  // Five products to the forward's two.
  { name: 'attention_bwd', access: ['r', 'r', 'r', 'r', 'w', '-'], flops: (s) => 2.5 * attentionFlops(s) },
  { name: 'swiglu_fwd', access: ['r', 'w'] },
  { name: 'swiglu_bwd', access: ['r', 'r', 'w'] },
  // As many rows as there are tokens, not the whole table.
  { name: 'embed_fwd', bytes: (t) => size(t, 0) + 2 * size(t, 2) },
  {
    name: 'embed_bwd',
    bytes: (t, s) => size(t, 0) + size(t, 1) + size(t, 2) + 2 * 4 * at(s, 1) * Math.min(at(s, 0), at(s, 3)),
  },
  { name: 'ce_stats', access: ['r', 'r', 'w'] },
  { name: 'ce_rescale', access: ['rw', 'r'] },
  { name: 'ce_grad', access: ['rw', 'r', 'r', 'r', 'r', '-', 'w'] },
  { name: 'add', access: ['r', 'r', 'w'] },
  { name: 'cast', access: ['r', 'w'] },
  { name: 'fill', access: ['w'] },
  { name: 'scale', access: ['rw'] },
  { name: 'sumsq', access: ['r', '-', '-'] },
  { name: 'optimizer_prepare', access: ['r', 'r', 'rw'] },
  {
    // In float32 the parameters are the output.
    name: 'adamw',
    bytes: (t) => 6 * size(t, 0) + size(t, 3) + (t[4]?.offset === t[0]?.offset ? 0 : size(t, 4)),
  },
  { name: 'init_normal', access: ['w'] },
];

/**
 * The cost of an op from the binding's argument buffer, as it stands at the call.
 * @param nt tensors in it, four numbers each
 * @param ns scalars after them
 */
export function opCost(op: number, args: Float64Array, nt: number, ns: number): CallCost {
  const cost = OPS[op];
  if (cost === undefined) return { name: `op ${op}`, bytes: 0, flops: 0 };
  const tensors = operands(args, nt);
  const scalars = Array.from(args.subarray(4 * nt, 4 * nt + ns));
  const moved = (operand: Operand, i: number): number =>
    operand.arena < 0 ? 0 : operand.bytes * { r: 1, w: 1, rw: 2, '-': 0 }[cost.access?.[i] ?? '-'];
  const detail = cost.detail?.(tensors, scalars);
  return {
    name: detail === undefined ? cost.name : `${cost.name} ${detail}`,
    bytes: cost.bytes?.(tensors, scalars) ?? tensors.reduce((sum, operand, i) => sum + moved(operand, i), 0),
    flops: cost.flops?.(scalars) ?? 0,
  };
}

export function operands(args: Float64Array, count: number): Operand[] {
  return Array.from({ length: count }, (_, i) => {
    const [arena = -1, offset = 0, bytes = 0, dtype = 0] = args.subarray(4 * i, 4 * i + 4);
    return { arena, offset, bytes, dtype };
  });
}

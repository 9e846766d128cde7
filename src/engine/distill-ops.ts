import { STREAM, type Device } from './device.js';
import { OPS, type OpDeclaration } from './op-table.js';
import type { Tensor } from './tensor.js';

// The ops of distillation; ops.def documents them. All of them go to the compute stream.

/** MB_MOST_TOP_K of abi.h. */
export const MOST_TOP_K = 1024;

function run(device: Device, op: OpDeclaration, tensors: (Tensor | null)[], scalars: number[]): void {
  device.run(op.number, tensors, scalars, STREAM.compute);
}

/** values f32 and ids i32 [rows, k]: the k largest of each row of a vocabulary shard, of equal ones the lowest token first. */
export function topK(device: Device, t: { logits: Tensor; values: Tensor; ids: Tensor }, vstart: number): void {
  const [rows = 0, cols = 0] = t.logits.shape;
  run(device, OPS.topK, [t.logits, t.values, t.ids], [rows, cols, t.ids.size / rows, vstart]);
}

/** The first k of lists [shards, rows, k] as log-probabilities f32 [rows, k]; `sums` f32 [rows] at that temperature. */
export function topKMerge(
  device: Device,
  t: { values: Tensor; lists: Tensor; max: Tensor; sums: Tensor; logprobs: Tensor; ids: Tensor },
  temperature: number,
): void {
  const rows = t.max.size;
  const scalars = [t.values.size / t.ids.size, rows, t.ids.size / rows, temperature];
  run(device, OPS.topKMerge, [t.values, t.lists, t.max, t.sums, t.logprobs, t.ids], scalars);
}

/** sums f32 [rows] of exp((x - max) / temperature); with a teacher f32 [3, rows]: also the teacher's, and their moment. */
export function softSums(
  device: Device,
  t: { logits: Tensor; max: Tensor; sums: Tensor; teacher?: { logits: Tensor; max: Tensor } },
  temperature: number,
): void {
  const [rows = 0, cols = 0] = t.logits.shape;
  const tensors = [t.logits, t.max, t.teacher?.logits ?? null, t.teacher?.max ?? null, t.sums];
  run(device, OPS.softSums, tensors, [rows, cols, temperature]);
}

/** values f32 [rows, k] = the logits of `ids` i32 [rows, k], 0 of those that are in another shard. */
export function topKGather(device: Device, t: { logits: Tensor; ids: Tensor; values: Tensor }, vstart: number): void {
  const [rows = 0, cols = 0] = t.logits.shape;
  run(device, OPS.topKGather, [t.logits, t.ids, t.values], [rows, cols, t.ids.size / rows, vstart]);
}

/**
 * Logits become the gradient of KL(teacher || student) over the tokens `ids`. `teacher` and `student` f32 [rows, k]: its
 * log-probabilities, their logits. Without `sums` both are made to sum to 1 over these tokens.
 */
export function topKKl(
  device: Device,
  t: {
    logits: Tensor;
    ids: Tensor;
    teacher: Tensor;
    student: Tensor;
    mask: Tensor;
    max: Tensor;
    sums: Tensor | null;
    acc: Tensor;
    rowLoss: Tensor;
  },
  { vstart, temperature }: { vstart: number; temperature: number },
): void {
  const [rows = 0, cols = 0] = t.logits.shape;
  const tensors = [t.logits, t.ids, t.teacher, t.student, t.mask, t.max, t.sums, t.acc, t.rowLoss];
  run(device, OPS.topKKl, tensors, [rows, cols, t.ids.size / rows, vstart, temperature]);
}

/** Logits become the gradient of KL(teacher || student) over the vocabulary; `sums` f32 [3, rows] over all shards. */
export function softKl(
  device: Device,
  t: {
    logits: Tensor;
    teacher: Tensor;
    mask: Tensor;
    max: Tensor;
    teacherMax: Tensor;
    sums: Tensor;
    acc: Tensor;
    rowLoss: Tensor;
  },
  temperature: number,
): void {
  const [rows = 0, cols = 0] = t.logits.shape;
  const tensors = [t.logits, t.teacher, t.mask, t.max, t.teacherMax, t.sums, t.acc, t.rowLoss];
  run(device, OPS.softKl, tensors, [rows, cols, temperature]);
}

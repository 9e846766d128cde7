/** How an op uses a tensor: reads it, writes all of it, changes it, or uses it as scratch. ?: it may be absent. */
export type Access = 'r' | 'r?' | 'w' | 'w?' | 'rw' | 'rw?' | 's' | 's?';

/** An op as it is declared: what it takes, in order. */
export interface OpDeclaration {
  readonly number: number;
  readonly name: string;
  /** By name, in the order of the call. */
  readonly tensors: Readonly<Record<string, Access>>;
  readonly scalars: readonly string[];
}

/** Ops of a device, written by scripts/op-table.mjs from native/core/ops.def, which documents them. */
export const OPS = {
  gemm: {
    number: 0,
    name: 'gemm',
    tensors: { A: 'r', B: 'r', C: 'r?', D: 'w' },
    scalars: ['m', 'n', 'k', 'ta', 'tb', 'lda', 'ldb', 'ldc', 'ldd', 'alpha', 'beta', 'fixed_order'],
  },
  rmsnormFwd: {
    number: 1,
    name: 'rmsnorm_fwd',
    tensors: { x: 'r', w: 'r', y: 'w', rstd: 'w' },
    scalars: ['rows', 'cols', 'eps'],
  },
  addRmsnormFwd: {
    number: 2,
    name: 'add_rmsnorm_fwd',
    tensors: { x: 'r', delta: 'r', w: 'r', sum: 'w', y: 'w', rstd: 'w' },
    scalars: ['rows', 'cols', 'eps'],
  },
  rmsnormBwd: {
    number: 3,
    name: 'rmsnorm_bwd',
    tensors: { dy: 'r', x: 'r', w: 'r', rstd: 'r', dx: 'rw', dw: 'rw?', ws: 's?' },
    scalars: ['rows', 'cols', 'accumulate_dx', 'accumulate_dw'],
  },
  ropeTable: {
    number: 4,
    name: 'rope_table',
    tensors: { out: 'w', frequencies: 'r?' },
    scalars: ['positions', 'd', 'theta', 'scale'],
  },
  qknormRopeFwd: {
    number: 5,
    name: 'qknorm_rope_fwd',
    tensors: { qkv: 'r', wq: 'r?', wk: 'r?', table: 'r', positions: 'r', out: 'w', rstd: 'w?' },
    scalars: ['T', 'hq', 'hkv', 'd', 'eps'],
  },
  qknormRopeBwd: {
    number: 6,
    name: 'qknorm_rope_bwd',
    tensors: {
      dqkv: 'rw',
      qkv: 'r?',
      wq: 'r?',
      wk: 'r?',
      table: 'r',
      positions: 'r',
      rstd: 'r?',
      dwq: 'rw?',
      dwk: 'rw?',
      ws: 's?',
    },
    scalars: ['T', 'hq', 'hkv', 'd', 'accumulate_dw'],
  },
  attentionFwd: {
    number: 7,
    name: 'attention_fwd',
    tensors: { q: 'r', k: 'r', v: 'r', o: 'w', lse: 'w', bounds: 'r?', ws: 's' },
    scalars: [
      'b',
      'sq',
      'skv',
      'hq',
      'hkv',
      'd',
      'ldq',
      'ldk',
      'ldv',
      'ldo',
      'kv_rows',
      'offset',
      'scale',
      'deterministic',
      'fixed_order',
    ],
  },
  attentionBwd: {
    number: 8,
    name: 'attention_bwd',
    tensors: { q: 'r', k: 'r', v: 'r', o: 'r', lse: 'r', do: 'r', dq: 'w', dk: 'w', dv: 'w', bounds: 'r?', ws: 's' },
    scalars: [
      'b',
      'sq',
      'skv',
      'hq',
      'hkv',
      'd',
      'ldq',
      'ldk',
      'ldv',
      'ldo',
      'lddq',
      'lddk',
      'lddv',
      'kv_rows',
      'offset',
      'scale',
      'deterministic',
    ],
  },
  swigluFwd: { number: 9, name: 'swiglu_fwd', tensors: { gu: 'r', out: 'w' }, scalars: ['T', 'f'] },
  swigluBwd: { number: 10, name: 'swiglu_bwd', tensors: { dout: 'r', gu: 'r', dgu: 'w' }, scalars: ['T', 'f'] },
  embedFwd: {
    number: 11,
    name: 'embed_fwd',
    tensors: { ids: 'r', w: 'r', out: 'w' },
    scalars: ['T', 'h', 'vstart', 'vrows'],
  },
  embedBwd: {
    number: 12,
    name: 'embed_bwd',
    tensors: { ids: 'r', order: 'r', dout: 'r', dw: 'rw' },
    scalars: ['T', 'h', 'vstart', 'vrows'],
  },
  ceStats: {
    number: 13,
    name: 'ce_stats',
    tensors: { logits: 'r', targets: 'r', stats: 'w' },
    scalars: ['T', 'V', 'vstart'],
  },
  ceRescale: { number: 14, name: 'ce_rescale', tensors: { stats: 'rw', gmax: 'r' }, scalars: ['T'] },
  ceGrad: {
    number: 15,
    name: 'ce_grad',
    tensors: { logits: 'rw', targets: 'r', mask: 'r', gmax: 'r', sums: 'r', acc: 'rw', rowloss: 'w' },
    scalars: ['T', 'V', 'vstart'],
  },
  add: { number: 16, name: 'add', tensors: { a: 'r', b: 'r', out: 'w' }, scalars: ['n'] },
  biasAdd: { number: 17, name: 'bias_add', tensors: { y: 'rw', bias: 'r' }, scalars: ['T', 'n'] },
  biasGrad: {
    number: 18,
    name: 'bias_grad',
    tensors: { dy: 'r', db: 'rw', ws: 's' },
    scalars: ['T', 'n', 'accumulate'],
  },
  cast: { number: 19, name: 'cast', tensors: { in: 'r', out: 'w' }, scalars: ['n'] },
  copy2d: {
    number: 20,
    name: 'copy_2d',
    tensors: { src: 'r', dst: 'w' },
    scalars: ['rows', 'row_bytes', 'src_stride', 'dst_stride'],
  },
  fill: { number: 21, name: 'fill', tensors: { out: 'w' }, scalars: ['n', 'value'] },
  sumsq: { number: 22, name: 'sumsq', tensors: { x: 'r', out: 'rw', ws: 's' }, scalars: ['n', 'accumulate'] },
  optimizerPrepare: {
    number: 23,
    name: 'optimizer_prepare',
    tensors: { normsq: 'r', acc: 'r', state: 'rw' },
    scalars: ['clip', 'beta1', 'beta2', 'lr', 'min_lr', 'warmup', 'decay_iters', 'decay_style', 'wsd_iters'],
  },
  adamw: {
    number: 24,
    name: 'adamw',
    tensors: { p: 'rw', m: 'rw', v: 'rw', g: 'r', out: 'w?', state: 'r' },
    scalars: ['n', 'beta1', 'beta2', 'eps', 'weight_decay'],
  },
  initNormal: {
    number: 25,
    name: 'init_normal',
    tensors: { out: 'w' },
    scalars: ['rows', 'cols', 'row0', 'col0', 'gcols', 'std', 'seed_lo', 'seed_hi', 'key_lo', 'key_hi'],
  },
  kvStore: {
    number: 26,
    name: 'kv_store',
    tensors: { qkv: 'r', cells: 'r', positions: 'r', k: 'rw', v: 'rw' },
    scalars: ['T', 'hq', 'hkv', 'd', 'slots', 'context'],
  },
  attentionDecode: {
    number: 27,
    name: 'attention_decode',
    tensors: { q: 'r', cells: 'r', positions: 'r', k: 'r', v: 'r', o: 'w', ws: 's?' },
    scalars: ['T', 'hq', 'hkv', 'd', 'ldq', 'slots', 'context', 'scale', 'prompts'],
  },
  sample: {
    number: 28,
    name: 'sample',
    tensors: { logits: 'r', rows: 'r', positions: 'r', floor: 'r?', out: 'w' },
    scalars: ['T', 'V', 'vstart', 'temperature', 'seed_lo', 'seed_hi'],
  },
  samplePick: { number: 29, name: 'sample_pick', tensors: { scores: 'r', tokens: 'w' }, scalars: ['parts', 'T'] },
  sampleFloor: {
    number: 30,
    name: 'sample_floor',
    tensors: { logits: 'r', floor: 'w' },
    scalars: ['shards', 'T', 'V', 'room', 'temperature', 'top_k', 'top_p'],
  },
  tokenMoment: {
    number: 31,
    name: 'token_moment',
    tensors: { logits: 'r', gmax: 'r', moment: 'w' },
    scalars: ['T', 'V'],
  },
  tokenValues: {
    number: 32,
    name: 'token_values',
    tensors: { gmax: 'r', sums: 'r', moment: 'r', logprob: 'w', entropy: 'w' },
    scalars: ['T'],
  },
  tokenGrad: {
    number: 33,
    name: 'token_grad',
    tensors: { logits: 'rw', targets: 'r', dlogprob: 'r', dentropy: 'r', entropy: 'r', gmax: 'r', sums: 'r' },
    scalars: ['T', 'V', 'vstart'],
  },
  attentionJoin: {
    number: 34,
    name: 'attention_join',
    tensors: { o_part: 'r', lse_part: 'r', o: 'rw', lse: 'rw', sum: 'rw' },
    scalars: ['b', 's', 'h', 'd', 'first'],
  },
  accumulate: {
    number: 35,
    name: 'accumulate',
    tensors: { x: 'r', sum: 'rw', out: 'rw' },
    scalars: ['rows', 'cols', 'ldx', 'ldout', 'first'],
  },
  shift: { number: 36, name: 'shift', tensors: { in: 'r', out: 'w' }, scalars: ['n', 'by'] },
  topK: {
    number: 37,
    name: 'top_k',
    tensors: { logits: 'r', values: 'w', ids: 'w' },
    scalars: ['T', 'V', 'k', 'vstart'],
  },
  topKMerge: {
    number: 38,
    name: 'top_k_merge',
    tensors: { values: 'r', lists: 'r', gmax: 'r', sums: 'r', logprobs: 'w', ids: 'w' },
    scalars: ['shards', 'T', 'k', 'temperature'],
  },
  softSums: {
    number: 39,
    name: 'soft_sums',
    tensors: { logits: 'r', gmax: 'r', teacher: 'r?', tmax: 'r?', sums: 'w' },
    scalars: ['T', 'V', 'temperature'],
  },
  topKGather: {
    number: 40,
    name: 'top_k_gather',
    tensors: { logits: 'r', ids: 'r', values: 'w' },
    scalars: ['T', 'V', 'k', 'vstart'],
  },
  topKKl: {
    number: 41,
    name: 'top_k_kl',
    tensors: {
      logits: 'rw',
      ids: 'r',
      teacher: 'r',
      student: 'r',
      mask: 'r',
      gmax: 'r',
      sums: 'r?',
      acc: 'rw',
      rowloss: 'w',
    },
    scalars: ['T', 'V', 'k', 'vstart', 'temperature'],
  },
  softKl: {
    number: 42,
    name: 'soft_kl',
    tensors: { logits: 'rw', teacher: 'r', mask: 'r', gmax: 'r', tmax: 'r', sums: 'r', acc: 'rw', rowloss: 'w' },
    scalars: ['T', 'V', 'temperature'],
  },
} as const satisfies Record<string, OpDeclaration>;

/** Ops of a communicator, from native/core/comm_ops.def. */
export const COMM_OPS = {
  reduceNormGather: {
    number: 0,
    name: 'reduce_norm_gather',
    tensors: { partial: 'r', residual: 'r', w: 'r', sum: 'w', y: 'w', full: 'w', rstd: 'w' },
    scalars: ['rows', 'cols', 'eps'],
  },
  normBwdGather: {
    number: 1,
    name: 'norm_bwd_gather',
    tensors: { partial: 'r', x: 'r', w: 'r', rstd: 'r', dx: 'rw', dw: 'rw?', ws: 's?', full: 'w?' },
    scalars: ['rows', 'cols', 'accumulate_dx', 'accumulate_dw'],
  },
} as const satisfies Record<string, OpDeclaration>;

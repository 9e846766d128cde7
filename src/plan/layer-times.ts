import type { Precision } from '../config/layout.js';
import { linearShapes, type LinearShape } from '../families/parameters.js';
import type { ModelShape } from '../families/model-shape.js';
import type { DeviceProfile } from './device-profiles.js';
import { fp8Rate, QUANTISE_CALLS, quantisedBytes, type Fp8Work } from './fp8-times.js';
import type { LinkRates } from './link-rates.js';

/** What a rank does with a micro-batch: all that its time depends on, as a configuration and a layout have it. */
export interface MicroBatchWork {
  readonly shape: ModelShape;
  readonly batch: number;
  readonly seq: number;
  readonly tp: number;
  readonly cp: number;
  readonly sequenceParallel: boolean;
  readonly precision: Precision;
  readonly fp8: Fp8Work | null;
  readonly recompute: 'none' | 'selective' | 'full';
  /** What `selective` drops. */
  readonly recomputeModules: readonly ('norm' | 'rope' | 'swiglu' | 'attention' | 'mlp')[];
  readonly deterministic: boolean;
  /** Whether the products' weights are trained, and not only adapters beside them. */
  readonly trainsWeights: boolean;
}

/** Milliseconds by what they go to. */
export interface Times {
  readonly products: number;
  readonly attention: number;
  /** Norms, rotations, activations and the loss: what is read and written once. */
  readonly memory: number;
  /** From the end of one kernel to the begin of the next. */
  readonly calls: number;
  /** Of collectives, what hides behind nothing. */
  readonly exchanges: number;
}

export interface PassTimes {
  readonly forward: Times;
  readonly backward: Times;
}

/** Of a decoder layer, and of what is outside of the layers: the embedding (first stage) and the head (last stage). */
export interface MicroBatchTimes {
  readonly layer: PassTimes;
  readonly embedding: PassTimes;
  readonly head: PassTimes;
}

/** Seen in profiles of steps (docs/performance.md): 19 ms between 3,300 calls; kernels that copy reach this part of a copy's rate. */
const CALL_MS = 0.0058;
const COPY_SHARE = 0.85;
/** Queries at which attention has half of its rate: fits what was measured from 4,096 to 32,768. */
const HALF_RATE = { forward: 1000, backward: 1400 };
/** cuDNN's backward at 4,096 tokens: 359 TFLOP/s where it is to be deterministic, 404 where not. */
const DETERMINISTIC_SHARE = 0.89;
/** In float32 attention is a kernel of our own, on no tensor cores. */
const ATTENTION_FP32_SHARE = 0.4;
/** Of a collective that runs beside products, what they still wait for: tp 2 of Qwen3-4B over peer memory, cp 2 at 32k. */
const EXPOSED = { tpBackward: 0.8, cp: 0.3 };
const EXCHANGE_MS = 0.012;
const NONE: Times = { products: 0, attention: 0, memory: 0, calls: 0, exchanges: 0 };

/** Kernels of a layer's passes, and of the head's. */
const CALLS = { forward: 9, backward: 16, head: 10 };

/**
 * Milliseconds of one micro-batch on a rank of `profile`, alone: each product at the device's rate or, where that is slower, at
 * the rate of its bytes; attention by its length; the rest by its bytes; of tp and cp what is not hidden.
 */
export function microBatchTimes(work: MicroBatchWork, profile: DeviceProfile, links: LinkRates): MicroBatchTimes {
  const { shape, tp, cp } = work;
  const tokens = (work.batch * work.seq) / cp;
  const size = work.precision === 'fp32' ? 4 : 2;
  const bytesPerMs = (COPY_SHARE * profile.memoryGBs * 1e9) / 1e3;
  const moved = (elements: number): number => (elements * size) / bytesPerMs;

  const linears = linearShapes(shape, tp);
  const inLayer = linears.slice(0, -1);
  const head = linears.at(-1) as LinearShape;
  const product = ({ name, inputs, outputs }: LinearShape, pass: 'data' | 'weight'): number => {
    const inFp8 = work.fp8 !== null && name !== head.name && (pass === 'data' || work.fp8.wgrad);
    const own = work.precision === 'fp32' ? profile.productTflopsFp32 : profile.productTflops;
    const rate = work.fp8 !== null && inFp8 ? fp8Rate(profile, work.fp8) : own;
    const flops = 2 * tokens * inputs * outputs;
    const weights = inputs * outputs * (pass === 'weight' ? 8 : size);
    return Math.max(flops / (rate * 1e9), (size * tokens * (inputs + outputs) + weights) / (profile.memoryGBs * 1e6));
  };
  const all = (pass: 'data' | 'weight', of = inLayer): number => total(of.map((linear) => product(linear, pass)));
  const weightPass = (of: readonly LinearShape[]): number =>
    work.trainsWeights ? total(of.map((l) => product(l, 'weight'))) : 0;

  const hidden = (work.sequenceParallel ? tokens / tp : tokens) * shape.hiddenSize;
  const qkv = (tokens * (shape.numHeads + 2 * shape.numKvHeads) * shape.headDim) / tp;
  const ffn = (tokens * shape.intermediateSize) / tp;
  const [norm, rotation, activation] = [moved(4 * hidden), moved(2 * qkv), moved(3 * ffn)];
  const attention = attentionMs(work, profile);
  const q = (tokens * shape.numHeads * shape.headDim) / tp;
  const quantised =
    work.fp8 === null
      ? { forward: 0, backward: 0 }
      : quantisedBytes(work.fp8, { hidden: tokens * shape.hiddenSize, q, qkv, ffn });
  const calls = (pass: 'forward' | 'backward'): number =>
    (CALLS[pass] + (work.fp8 === null ? 0 : work.fp8.share * QUANTISE_CALLS[pass])) * CALL_MS;

  // All of them are sums over tokens x hidden: what each of tp ranks sends of one.
  const part = (size * tokens * shape.hiddenSize * (tp - 1)) / tp / links.tp;
  const tensor = tp === 1 ? 0 : 4 * (part * 1e3 + EXCHANGE_MS);
  const keys = (size * tokens * 2 * shape.numKvHeads * shape.headDim) / tp;
  const context = cp === 1 ? 0 : EXPOSED.cp * (((cp - 1) * keys * 1e3) / links.cp + EXCHANGE_MS);

  const forward: Times = {
    products: all('data'),
    attention: attention.forward,
    memory: 2 * norm + rotation + activation + quantised.forward / bytesPerMs,
    calls: calls('forward'),
    exchanges: tensor + context,
  };
  const again = recomputed(work, forward, {
    norm,
    rotation,
    activation,
    gateUp: product(inLayer.at(-2) as LinearShape, 'data'),
    down: product(inLayer.at(-1) as LinearShape, 'data'),
  });
  const layer = {
    forward,
    backward: plus(again, {
      products: all('data') + weightPass(inLayer),
      attention: attention.backward,
      memory: 2 * norm + 1.5 * rotation + (5 / 3) * activation + quantised.backward / bytesPerMs,
      calls: calls('backward'),
      exchanges: EXPOSED.tpBackward * tensor + 2 * context,
    }),
  };
  const logits = (tokens * shape.vocabSize) / tp;
  return {
    layer,
    embedding: {
      forward: { ...NONE, memory: moved(2 * hidden), calls: CALL_MS },
      backward: { ...NONE, memory: moved(4 * Math.min(tokens, shape.vocabSize) * shape.hiddenSize), calls: CALL_MS },
    },
    head: {
      // The projection's backward is a part of its forward.
      forward: {
        products: 2 * product(head, 'data') + weightPass([head]),
        attention: 0,
        memory: moved(3 * logits) + norm,
        calls: CALLS.head * CALL_MS,
        exchanges: tensor / 2,
      },
      backward: { ...NONE, memory: norm, calls: CALL_MS },
    },
  };
}

/** What backward does again of the forward. */
function recomputed(
  { recompute, recomputeModules: modules }: MicroBatchWork,
  forward: Times,
  parts: Readonly<Record<'norm' | 'rotation' | 'activation' | 'gateUp' | 'down', number>>,
): Times {
  if (recompute === 'none') return NONE;
  if (recompute === 'full') return { ...forward, products: forward.products - parts.down };
  const mlp = modules.includes('mlp');
  const memory = [
    modules.includes('norm') ? parts.norm : 0,
    modules.includes('rope') ? parts.rotation : 0,
    mlp || modules.includes('swiglu') ? parts.activation : 0,
  ];
  return {
    ...NONE,
    products: mlp ? parts.gateUp : 0,
    attention: modules.includes('attention') ? forward.attention : 0,
    memory: total(memory),
    calls: (1 + modules.length) * CALL_MS,
  };
}

/** Of a layer: a rank of cp holds two chunks of each sequence, which see themselves and 2 cp - 1 other chunks, whole. */
function attentionMs(work: MicroBatchWork, profile: DeviceProfile): { forward: number; backward: number } {
  const { shape, batch, seq, tp, cp } = work;
  const chunk = cp === 1 ? seq : seq / (2 * cp);
  const pairs = cp === 1 ? seq ** 2 / 2 : 2 * (chunk ** 2 / 2) + (2 * cp - 1) * chunk ** 2;
  const flops = (4 * batch * shape.numHeads * shape.headDim * pairs) / tp;
  if (work.precision === 'fp32') {
    const ms = flops / (ATTENTION_FP32_SHARE * profile.productTflopsFp32 * 1e9);
    return { forward: ms, backward: 2.5 * ms };
  }
  const rate = (pass: 'forward' | 'backward'): number =>
    (profile.attentionTflops[pass] * chunk) / (chunk + HALF_RATE[pass]);
  const share = work.deterministic ? DETERMINISTIC_SHARE : 1;
  return { forward: flops / (rate('forward') * 1e9), backward: (2.5 * flops) / (rate('backward') * share * 1e9) };
}

function total(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0);
}

/** Sums by kind. */
export function plus(...times: readonly Times[]): Times {
  return times.reduce((a, b) => ({
    products: a.products + b.products,
    attention: a.attention + b.attention,
    memory: a.memory + b.memory,
    calls: a.calls + b.calls,
    exchanges: a.exchanges + b.exchanges,
  }));
}

/** So many times these. */
export function times(count: number, { products, attention, memory, calls, exchanges }: Times): Times {
  return {
    ...{ products: count * products, attention: count * attention, memory: count * memory },
    ...{ calls: count * calls, exchanges: count * exchanges },
  };
}

export function sumOf({ products, attention, memory, calls, exchanges }: Times): number {
  return products + attention + memory + calls + exchanges;
}

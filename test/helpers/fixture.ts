import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { SafetensorsFile } from '../../src/checkpoint/files/safetensors.js';
import { readSliceInto, sliceSize } from '../../src/checkpoint/files/safetensors-slice.js';
import { readHfModel } from '../../src/checkpoint/hf/hf-files.js';
import { modelShape, type ModelShape } from '../../src/families/model-shape.js';

/** The oracle fixtures: what torch computed from small models (fixtures/README.md). */
export const FIXTURES = ['qwen3-tied', 'qwen3-untied', 'qwen3-masked'] as const;
/** Of the other families: of odd vocabularies, heads of other widths, sharded files, bf16; of stretched frequencies; of packed documents. */
export const FAMILY_FIXTURES = [
  'qwen2-tied',
  'qwen2-untied',
  'llama-scaled',
  'llama-untied',
  'qwen3-yarn',
  'qwen3-packed',
] as const;
export type FixtureName = (typeof FIXTURES)[number] | (typeof FAMILY_FIXTURES)[number];

export interface Trajectory {
  readonly optimizer: {
    readonly lr: number;
    readonly min_lr: number;
    readonly warmup_steps: number;
    readonly decay: string;
    readonly decay_steps: number;
    readonly beta1: number;
    readonly beta2: number;
    readonly eps: number;
    readonly weight_decay: number;
    readonly clip_grad_norm: number;
  };
  readonly batch: number;
  readonly seq: number;
  /** Whether samples hold several documents, each seen by itself. */
  readonly packed?: boolean;
  /** grad_norm is before clipping. */
  readonly steps: readonly {
    readonly step: number;
    readonly loss: number;
    readonly grad_norm: number;
    readonly lr: number;
  }[];
}

export interface Expected {
  /** Of the first batch. */
  readonly loss: number;
  /** [batch * seq, vocab] */
  readonly logits: Float32Array;
  /** Gradient of the loss by parameter name, row-major in the parameter's global shape. */
  readonly grads: ReadonlyMap<string, Float32Array>;
}

export interface Fixture {
  readonly name: FixtureName;
  /** Holds config.json and the weights. */
  readonly folder: string;
  readonly tokens: string;
  readonly shape: ModelShape;
  readonly trajectory: Trajectory;
  expected(): Promise<Expected>;
}

export function loadFixture(name: FixtureName): Fixture {
  const folder = join(import.meta.dirname, '../../fixtures', name);
  const json = (file: string): unknown => JSON.parse(readFileSync(join(folder, file), 'utf8'));
  return {
    name,
    folder,
    tokens: join(folder, 'tokens.jsonl'),
    shape: modelShape({ model: readHfModel(folder) }),
    trajectory: json('trajectory.json') as Trajectory,
    expected: () => readExpected(join(folder, 'expected.safetensors')),
  };
}

async function readExpected(path: string): Promise<Expected> {
  const file = await SafetensorsFile.open(path);
  const floats = async (name: string): Promise<Float32Array> => {
    const dst = new Float32Array(sliceSize(file.tensor(name), {}));
    await readSliceInto(file, name, {}, dst);
    return dst;
  };
  const grads = new Map<string, Float32Array>();
  for (const name of file.tensors.keys()) {
    if (name.startsWith('grad.')) grads.set(name.slice('grad.'.length), await floats(name));
  }
  const expected = { loss: (await floats('loss'))[0] as number, logits: await floats('logits'), grads };
  await file.close();
  return expected;
}

/** ‖x - reference‖ / ‖reference‖, in float64. */
export function relativeError(x: ArrayLike<number>, reference: ArrayLike<number>): number {
  if (x.length !== reference.length) throw new Error(`${x.length} elements, the reference has ${reference.length}`);
  let [difference, norm] = [0, 0];
  for (let i = 0; i < reference.length; i++) {
    const r = reference[i] as number;
    difference += ((x[i] as number) - r) ** 2;
    norm += r ** 2;
  }
  return Math.sqrt(difference / norm);
}

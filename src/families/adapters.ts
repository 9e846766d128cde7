import { layerPrefix } from './decoder.js';
import { FAMILIES } from './families.js';
import type { LinearBlock, LinearSpec } from './family.js';
import type { ModelShape } from './model-shape.js';
import { layerLinears, widthOf, type Parameter } from './parameters.js';

/** Low-rank adapters of a model's products (LoRA): y = W x + alpha / rank * B (A x). The rest of the model is frozen. */
export interface Adapters {
  readonly rank: number;
  readonly alpha: number;
  /** Hugging Face's names of the products that have one, such as q_proj, in the order of a layer. */
  readonly modules: readonly string[];
}

/** A resolved configuration's `peft` section. */
export type PeftSettings =
  | { readonly type: 'none' }
  | {
      readonly type: 'lora';
      readonly dim: number;
      readonly alpha: number;
      readonly target_modules: readonly string[];
    };

const linears = FAMILIES.flatMap(({ layer }) => layer.filter((module) => module.kind === 'linear'));

/** The products that can have an adapter, as Hugging Face names them. */
export const ADAPTED_MODULES: readonly string[] = [
  ...new Set(linears.flatMap(({ parts }) => parts.map(({ name }) => moduleName(name)))),
];

/** Megatron's names of the fused products. */
export const FUSED_MODULES: Readonly<Record<string, LinearBlock>> = {
  linear_qkv: 'qkv',
  linear_proj: 'o',
  linear_fc1: 'gate+up',
  linear_fc2: 'down',
};

/** What a configuration asks for; null for none. */
export function adaptersOf(peft: PeftSettings): Adapters | null {
  if (peft.type === 'none') return null;
  const blocks = peft.target_modules.flatMap((name) => FUSED_MODULES[name] ?? []);
  const fused = linears.filter(({ block }) => blocks.includes(block)).flatMap(({ parts }) => parts);
  const named = new Set([...peft.target_modules, ...fused.map(({ name }) => moduleName(name))]);
  return { rank: peft.dim, alpha: peft.alpha, modules: ADAPTED_MODULES.filter((name) => named.has(name)) };
}

/** The parts of a product that have an adapter. */
export function adaptedParts({ parts }: LinearSpec, { modules }: Adapters): LinearSpec['parts'] {
  return parts.filter(({ name }) => modules.includes(moduleName(name)));
}

/** The parameters of the adapter of a weight of the model: peft's names within its file, but for what stands before them. */
export function adapterNames(weight: string): { readonly a: string; readonly b: string } {
  const module = weight.replace(/\.weight$/, '');
  return { a: `${module}.lora_A.weight`, b: `${module}.lora_B.weight` };
}

export function isAdapterParameter(name: string): boolean {
  return /\.lora_[AB]\.weight$/.test(name);
}

/** The adapters' parameters, in forward order: A [rank, inputs] and B [outputs, rank] of each. */
export function adapterParameters(shape: ModelShape, adapters: Adapters): Parameter[] {
  return adaptedWeights(shape, adapters).flatMap(({ name, shape: [outputs, inputs] }) => {
    const { a, b } = adapterNames(name);
    return [
      { name: a, shape: [adapters.rank, inputs] },
      { name: b, shape: [outputs, adapters.rank] },
    ];
  });
}

/** The model's weights that have an adapter. */
export function adaptedWeights(
  shape: ModelShape,
  adapters: Adapters,
): { readonly name: string; readonly shape: readonly [number, number] }[] {
  return Array.from({ length: shape.numLayers }, (_, layer) =>
    layerLinears(shape).flatMap((linear) =>
      adaptedParts(linear, adapters).map(({ name, outputs }) => ({
        name: `${layerPrefix(layer)}${name}.weight`,
        shape: [widthOf(shape, outputs), widthOf(shape, linear.inputs)] as const,
      })),
    ),
  ).flat();
}

/** How many numbers the adapters have. */
export function adapterCount(shape: ModelShape, adapters: Adapters): number {
  const { rank } = adapters;
  return adaptedWeights(shape, adapters).reduce((sum, { shape: [rows, cols] }) => sum + rank * (rows + cols), 0);
}

/** Where two differ in what they compute, in words; empty where they do not. */
export function adapterDifferences(found: Adapters | null, wanted: Adapters | null): string[] {
  if (found === null || wanted === null) {
    if (found === wanted) return [];
    return [found === null ? 'there are no adapters there' : 'there are adapters there, and none in the configuration'];
  }
  return (['rank', 'alpha', 'modules'] as const).flatMap((key) => {
    const [a, b] = [String(found[key]), String(wanted[key])];
    return a === b ? [] : [`${key} is ${a} there and ${b} in the configuration`];
  });
}

/** The last part of a module's name. */
function moduleName(name: string): string {
  return name.slice(name.lastIndexOf('.') + 1);
}

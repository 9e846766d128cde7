import { adaptedParts, adapterNames, type Adapters } from '../../families/adapters.js';
import { layerPrefix } from '../../families/decoder.js';
import type { LinearBlock, LinearSpec } from '../../families/family.js';
import type { ModelShape } from '../../families/model-shape.js';
import { layerLinears, widthOf } from '../../families/parameters.js';
import type { AdapterWeights } from '../blocks/adapter.js';
import type { BucketKind } from '../parameters/bucket.js';
import type { ParameterBuffer } from '../parameters/parameter-buffer.js';
import { matrix, type ParameterInit, type ParameterSpec, type Place, type Weight } from '../parameters/parameter.js';

export type AdaptersOf = (layer: number, block: LinearBlock) => AdapterWeights | null;

interface Planned {
  readonly layer: number;
  readonly linear: LinearSpec;
  /** A of every part, as one weight. */
  readonly a: readonly ParameterSpec[];
  readonly b: readonly ParameterSpec[];
  readonly columns: readonly number[];
}

/**
 * Lays out the adapters of a stage in two buckets: `adapters`, cut over tp as their products are, and `adapters-shared`,
 * which every tp rank holds whole and has a part of the gradient of.
 */
export function layOutAdapters(
  buffer: ParameterBuffer,
  shape: ModelShape,
  tp: Place,
  layers: readonly number[],
  adapters: Adapters | null,
): AdaptersOf {
  if (adapters === null) return () => null;
  const planned = layers.flatMap((layer) =>
    layerLinears(shape).flatMap((linear) => planOf(shape, layer, linear, tp, adapters)),
  );
  const kind = { weightDecay: true, tied: 'none', throughout: true, matrices: false } as const;
  const add = (name: string, of: Pick<BucketKind, 'tpReplicated' | 'tpPartialGradient'>, whole: boolean) => {
    const groups = planned.flatMap(({ linear, a, b }) => {
      // Of a product whose outputs are cut, A is whole; of one whose inputs are, B.
      const aIsWhole = linear.cut === 'outputs';
      return [...(aIsWhole === whole ? [a] : []), ...(aIsWhole === whole ? [] : b.map((spec) => [spec]))];
    });
    const weights = groups.length === 0 ? [] : buffer.add(name, { ...kind, ...of }, groups);
    return weights.map((weight, i) => [groups[i]?.[0]?.name ?? '', weight] as const);
  };
  const byName = new Map<string, Weight>([
    ...add('adapters', { tpReplicated: false, tpPartialGradient: false }, false),
    ...add('adapters-shared', { tpReplicated: true, tpPartialGradient: tp.size > 1 }, true),
  ]);
  const weightOf = (spec: ParameterSpec | undefined): Weight => byName.get(spec?.name ?? '') as Weight;
  const scale = adapters.alpha / adapters.rank;
  const found = new Map(
    planned.map(({ layer, linear, a, b, columns }): [string, AdapterWeights] => {
      const parts = b.map((spec, i) => ({ b: weightOf(spec), column: columns[i] as number }));
      return [`${layer} ${linear.block}`, { a: weightOf(a[0]), parts, rank: adapters.rank, scale }];
    }),
  );
  return (layer, block) => found.get(`${layer} ${block}`) ?? null;
}

function planOf(shape: ModelShape, layer: number, linear: LinearSpec, tp: Place, adapters: Adapters): Planned[] {
  const adapted = adaptedParts(linear, adapters);
  if (adapted.length === 0) return [];
  const inputs = widthOf(shape, linear.inputs);
  const byOutputs = linear.cut === 'outputs';
  const local = (part: LinearSpec['parts'][number]): number => widthOf(shape, part.outputs) / (byOutputs ? tp.size : 1);
  const spec = (name: string, size: [number, number], dim: 0 | 1 | null, init: ParameterInit): ParameterSpec => {
    return { ...matrix(name, size, dim, tp), init };
  };
  const names = adapted.map(({ name }) => adapterNames(`${layerPrefix(layer)}${name}.weight`));
  return [
    {
      layer,
      linear,
      a: names.map(({ a }) => spec(a, [adapters.rank, inputs], byOutputs ? null : 1, 'kaiming')),
      b: adapted.map(({ outputs }, i) => {
        const size: [number, number] = [widthOf(shape, outputs), adapters.rank];
        return spec(names[i]?.b ?? '', size, byOutputs ? 0 : null, 'zero');
      }),
      columns: adapted.map((part) =>
        linear.parts.slice(0, linear.parts.indexOf(part)).reduce((sum, before) => sum + local(before), 0),
      ),
    },
  ];
}

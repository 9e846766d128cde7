import { adaptedWeights, adapterNames } from '../../families/adapters.js';
import { areaOf, contains, type HeldPiece, type Rectangle } from '../parameters/rectangle.js';
import { bucketPieces } from '../parameters/bucket-pieces.js';
import type { Strided, Tensor } from '../../engine/tensor.js';
import type { Stage } from '../stage/stage.js';
import type { Move } from './transfer-plan.js';

/** What a rank holds of a model's weights, in the type that it computes with. */
export function weightsOf({ buffer }: Pick<Stage, 'buffer'>): HeldPiece[] {
  return buffer.buckets.flatMap((bucket) =>
    bucket.entries.map(({ spec, offset }) => held(spec.name, spec, bucket.params, offset)),
  );
}

/** What a rank holds of float32 main parameters beside its weights: none where a model is frozen, or is float32 itself. */
export function mainParametersOf({ optimizer }: Stage): HeldPiece[] {
  const buckets =
    optimizer?.buckets.filter(({ bucket, main }) => main.dtype === 'f32' && bucket.params.dtype !== 'f32') ?? [];
  return buckets.flatMap(({ bucket, main, start }) =>
    bucketPieces(bucket, start, main.size).map((piece) => held(piece.spec.name, piece, main, piece.offset - start)),
  );
}

function held(name: string, area: Rectangle, memory: Tensor, offset: number): HeldPiece {
  const { rows, cols } = area;
  return { piece: { name, rows, cols }, tensor: memory.slice(offset, areaOf(area), [rows.count, cols.count]) };
}

/** Finds where rectangles lie that are within one of those held. */
export function viewsOf(all: readonly HeldPiece[]): (move: Move) => Strided {
  const byName = new Map<string, HeldPiece[]>();
  for (const each of all) {
    const known = byName.get(each.piece.name);
    if (known === undefined) byName.set(each.piece.name, [each]);
    else known.push(each);
  }
  return (move) => {
    const { piece, tensor } = byName.get(move.name)?.find((each) => contains(each.piece, move)) as HeldPiece;
    const { rows, cols } = move;
    return tensor.rows(rows.start - piece.rows.start, rows.count).columns(cols.start - piece.cols.start, cols.count);
  };
}

/** scale * left right, rounded once with what it is added to. */
export interface AddedProduct {
  readonly left: Strided;
  readonly right: Strided;
  readonly scale: number;
}

/** What a rank's adapters add to rectangles of the weights that it holds: it has the rows of B and the columns of A for them. */
export function addedByAdapters({ spec, shape, buffer }: Stage): (move: Move) => AddedProduct | null {
  const { adapters } = spec;
  if (adapters === null) return () => null;
  const adapted = new Set(adaptedWeights(shape, adapters).map(({ name }) => name));
  const view = viewsOf(weightsOf({ buffer }));
  const low = { start: 0, count: adapters.rank };
  return (move) => {
    if (!adapted.has(move.name)) return null;
    const { a, b } = adapterNames(move.name);
    const [left, right] = [view({ ...move, name: b, cols: low }), view({ ...move, name: a, rows: low })];
    return { left, right, scale: adapters.alpha / adapters.rank };
  };
}

import { areaOf, contains, type Rectangle } from '../parameters/rectangle.js';
import { bucketPieces } from '../parameters/bucket-pieces.js';
import type { Strided, Tensor } from '../../engine/tensor.js';
import type { Stage } from '../stage/stage.js';
import type { Move, Piece } from './transfer-plan.js';

/** A rectangle that this rank holds, and where: [rows, cols]. */
export interface Held {
  readonly piece: Piece;
  readonly tensor: Tensor;
}

/** What a rank holds of a model's weights, in the type that it computes with. */
export function weightsOf({ buffer }: Stage): Held[] {
  return buffer.buckets.flatMap((bucket) =>
    bucket.entries.map(({ spec, offset }) => held(spec.name, spec, bucket.params, offset)),
  );
}

/** What a rank holds of the float32 main parameters: none where a model is frozen, or is float32 itself. */
export function mainParametersOf({ optimizer }: Stage): Held[] {
  const buckets = optimizer?.buckets.filter(({ bucket, main }) => main.dtype !== bucket.params.dtype) ?? [];
  return buckets.flatMap(({ bucket, main, start }) =>
    bucketPieces(bucket, start, main.size).map((piece) => held(piece.spec.name, piece, main, piece.offset - start)),
  );
}

function held(name: string, area: Rectangle, memory: Tensor, offset: number): Held {
  const { rows, cols } = area;
  return { piece: { name, rows, cols }, tensor: memory.slice(offset, areaOf(area), [rows.count, cols.count]) };
}

/** Finds where rectangles lie that are within one of those held. */
export function viewsOf(all: readonly Held[]): (move: Move) => Strided {
  const byName = new Map<string, Held[]>();
  for (const each of all) {
    const known = byName.get(each.piece.name);
    if (known === undefined) byName.set(each.piece.name, [each]);
    else known.push(each);
  }
  return (move) => {
    const { piece, tensor } = byName.get(move.name)?.find((each) => contains(each.piece, move)) as Held;
    const { rows, cols } = move;
    return tensor.rows(rows.start - piece.rows.start, rows.count).columns(cols.start - piece.cols.start, cols.count);
  };
}

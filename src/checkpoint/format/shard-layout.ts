import type { FileRecord } from '../files/file-record.js';
import { pieceName, pieceShape, type PieceRecord, type TensorRecord } from './checkpoint-format.js';
import type { Contribution } from './commit.js';
import type { Rectangle } from '../../model/parameters/rectangle.js';
import { DTYPE_BYTES, layOut, type SafetensorsDtype } from '../files/safetensors-header.js';

/** A rectangle of a tensor as it stands in a shard. */
export interface StoredPiece {
  /** Name of the whole tensor in the checkpoint. */
  readonly tensor: string;
  readonly dtype: SafetensorsDtype;
  /** Global. */
  readonly shape: readonly number[];
  readonly area: Rectangle;
}

/** A shard file: its first bytes, and its pieces in the order of theirs. */
export interface ShardLayout<P extends StoredPiece = StoredPiece> {
  readonly file: string;
  readonly head: Uint8Array;
  readonly bytes: number;
  readonly pieces: readonly (P & { readonly position: number; readonly bytes: number })[];
}

export function layOutShard<P extends StoredPiece>(file: string, pieces: readonly P[]): ShardLayout<P> {
  // The order that the format asks for, so that the file can be written from front to back.
  const sorted = [...pieces].sort((a, b) => DTYPE_BYTES[b.dtype] - DTYPE_BYTES[a.dtype]);
  const specs = sorted.map(({ tensor, dtype, shape, area }) => {
    return { name: pieceName(tensor, shape, area), dtype, shape: pieceShape(shape, area) };
  });
  const { head, header } = layOut(specs, {});
  const placed = sorted.map((piece, i) => {
    const { offset: position, bytes } = header.tensors[i] as (typeof header.tensors)[number];
    return { ...piece, position, bytes };
  });
  return { file, head, bytes: header.fileBytes, pieces: placed };
}

/** What shards that were written add to a checkpoint's index and commit record. */
export function describeShards(shards: readonly ShardLayout[], records: readonly FileRecord[]): Contribution {
  const tensors: Record<string, TensorRecord & { pieces: PieceRecord[] }> = {};
  for (const { file, pieces } of shards) {
    for (const { tensor, dtype, shape, area } of pieces) {
      const { rows, cols } = area;
      const record = (tensors[tensor] ??= { dtype, shape, pieces: [] });
      record.pieces.push({ file, rows: [rows.start, rows.count], cols: [cols.start, cols.count] });
    }
  }
  return { files: Object.fromEntries(shards.map(({ file }, i) => [file, records[i] as FileRecord])), tensors };
}

import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { checkpointIoError } from './checkpoint-error.js';
import { tensorName, type FileRecord, type PieceRecord, type TensorRecord } from './checkpoint-format.js';
import type { Contribution } from './commit.js';
import { writeJsonDurably } from './durable-files.js';
import type { ShardPlan } from './save-plan.js';

/** What the plan's files add to the index. */
export function describeShards(plans: readonly ShardPlan[], records: readonly FileRecord[]): Contribution {
  const tensors: Record<string, TensorRecord & { pieces: PieceRecord[] }> = {};
  for (const { file, pieces } of plans) {
    for (const { kind, parameter, shape, area } of pieces) {
      const record = (tensors[tensorName(kind, parameter)] ??= { dtype: 'F32', shape, pieces: [] });
      const { rows, cols } = area;
      record.pieces.push({ file, rows: [rows.start, rows.count], cols: [cols.start, cols.count] });
    }
  }
  return { files: Object.fromEntries(plans.map(({ file }, i) => [file, records[i] as FileRecord])), tensors };
}

function partFile(folder: string, rank: number): string {
  return join(folder, `part-${String(rank).padStart(5, '0')}.json`);
}

/** Leaves a rank's contribution where the committing rank finds it. */
export async function leaveContribution(folder: string, rank: number, contribution: Contribution): Promise<void> {
  await writeJsonDurably(partFile(folder, rank), contribution);
}

/** Takes what `ranks` ranks have left, and removes it. */
export async function takeContributions(folder: string, ranks: number): Promise<Contribution[]> {
  const contributions: Contribution[] = [];
  for (let rank = 0; rank < ranks; rank++) {
    const path = partFile(folder, rank);
    try {
      contributions.push(JSON.parse(await readFile(path, 'utf8')) as Contribution);
      await rm(path);
    } catch (cause) {
      throw checkpointIoError('read', path, cause);
    }
  }
  return contributions;
}

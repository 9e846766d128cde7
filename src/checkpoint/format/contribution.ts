import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { checkpointIoError } from '../files/checkpoint-error.js';
import type { Contribution } from './commit.js';
import { writeJsonDurably } from '../files/durable-files.js';

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

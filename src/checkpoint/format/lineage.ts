import { lstat, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { HeadKind } from '../../families/decoder.js';
import { crc32 } from '../../base/crc32.js';
import { errnoOf } from '../../base/system-error.js';
import { badCheckpoint, checkpointIoError } from '../files/checkpoint-error.js';
import { readStateAlone } from './checkpoint-files.js';
import { LATEST_FILE, stepOfFolder, type CheckpointState } from './checkpoint-format.js';
import { listRoot, type RootListing } from './checkpoint-root.js';

/** Sizes without which two models have other tensors. */
const SIZES = [
  'vocab_size',
  'hidden_size',
  'intermediate_size',
  'num_hidden_layers',
  'num_attention_heads',
  'num_key_value_heads',
  'head_dim',
  'tie_word_embeddings',
] as const satisfies readonly (keyof CheckpointState['model'])[];

/**
 * Whose a checkpoint is. A run that goes on in a folder from what is there has the lineage of that checkpoint; any other
 * begins a new one. Older versions recorded none: theirs is told by the model and the seeds.
 */
export function lineageOf({ lineage, model, rng }: CheckpointState): string {
  return lineage ?? `unrecorded-${crc32(Buffer.from(JSON.stringify([model, rng]))).toString(16)}`;
}

/** The checkpoints of a listing that are of a lineage; one whose state cannot be read is of none. */
export async function ofLineage(
  root: string,
  checkpoints: RootListing['checkpoints'],
  lineage: string,
): Promise<RootListing['checkpoints']> {
  const own: { name: string; step: number }[] = [];
  for (const checkpoint of checkpoints) {
    const state = await readStateAlone(join(root, checkpoint.name));
    if (state !== undefined && lineageOf(state) === lineage) own.push(checkpoint);
  }
  return own;
}

export interface Claimant {
  readonly lineage: string;
  readonly model: CheckpointState['model'];
  readonly head: HeadKind;
  /** The updates that will be saved, at most. */
  readonly first: number;
  readonly last: number;
}

/**
 * Refuses a folder in which a run would replace what its lineage did not write, or would mix two models.
 * @throws MbridgeError exit 7 that names it
 */
export async function refuseOtherLineage(root: string, claimant: Claimant): Promise<void> {
  const { lineage, model, head, first, last } = claimant;
  const listing = await listRoot(root);
  if (listing === null) return;
  const other = 'set checkpoint.save to another folder';
  const replace = 'checkpoint.overwrite=true replaces what is there';
  const later: string[] = [];
  for (const { name, step } of listing.checkpoints) {
    const state = await readStateAlone(join(root, name));
    const size = SIZES.find((key) => state?.model[key] !== undefined && state.model[key] !== model[key]);
    if (state !== undefined && size !== undefined) {
      const text = `is of another model (${size} ${state.model[size]}, this run has ${model[size]})`;
      throw badCheckpoint('FOREIGN', join(root, name), text, `${other}; ${replace}`);
    }
    if (state !== undefined && (state.head ?? 'language') !== head) {
      const text = `is of a ${state.head ?? 'language'} model, this run's is a ${head} model`;
      throw badCheckpoint('FOREIGN', join(root, name), text, `${other}; ${replace}`);
    }
    if (step >= first && (state === undefined || lineageOf(state) !== lineage)) later.push(name);
  }
  if (later.length > 0) {
    const text = `holds checkpoints of another run that this one would come upon: ${later.join(', ')}`;
    throw badCheckpoint(
      'FOREIGN',
      root,
      text,
      `to go on from them, set checkpoint.load=${root}; else ${other}; ${replace}`,
    );
  }
  const partial = listing.unfinished.find((name) => {
    const step = stepOfFolder(name);
    return step !== undefined && step >= first && step <= last;
  });
  if (partial !== undefined) {
    const text = 'is in the way of a save, and is no whole checkpoint';
    throw badCheckpoint('FOREIGN', join(root, partial), text, `move it away, or ${other}; ${replace}`);
  }
}

/** @throws MbridgeError exit 7 where a checkpoint of this name is another lineage's */
export async function refuseReplacing(root: string, name: string, lineage: string): Promise<void> {
  const there = (await listRoot(root))?.checkpoints.filter((checkpoint) => checkpoint.name === name) ?? [];
  if ((await ofLineage(root, there, lineage)).length === there.length) return;
  const hint = 'move it away, or set checkpoint.overwrite=true';
  throw badCheckpoint('FOREIGN', join(root, name), 'is a checkpoint that this run did not save', hint);
}

/**
 * `latest` is a name that others use as well.
 * @throws MbridgeError exit 7 where the folder has a `latest` that is not ours
 */
export async function refuseForeignLatest(root: string): Promise<void> {
  const path = join(root, LATEST_FILE);
  try {
    const found = await lstat(path);
    if (found.isFile() && found.size < 100 && /^(step-\d{8,})?\s*$/.test(await readFile(path, 'utf8'))) return;
  } catch (cause) {
    if (errnoOf(cause) === 'ENOENT') return;
    throw checkpointIoError('read', path, cause);
  }
  const hint = 'save in another folder';
  throw badCheckpoint('FOREIGN', path, 'does not name a checkpoint: it is not ours', hint);
}

import { createHash } from 'node:crypto';
import { readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { FolderClaim } from '../../base/folder-claim.js';
import { makeFolder } from '../../base/make-folder.js';
import { writeError } from '../indexed/format.js';
import type { InputFile } from './input-files.js';

/** What became of a file: kept with its part. */
export interface PartRecord {
  readonly documents: number;
  readonly tokens: number;
  readonly bad: number;
  readonly empty: number;
  /** Bytes of the part's .bin and .idx: a crash of the machine may have lost some of them. */
  readonly sizes: readonly [bin: number, idx: number];
}

/**
 * The folder beside the output where a part is kept for every file that is done: PREFIX.parts. A part belongs to a file
 * by path, size and time of change, and to all that decides its tokens. One process at a time works there.
 */
export class Staging {
  readonly folder: string;
  readonly #settings: string;
  readonly #claim: FolderClaim;

  /**
   * @param settings all that decides tokens besides the file
   * @throws MbridgeError MB_DATA_WRITE, MB_FOLDER_CLAIMED (exit 7)
   */
  constructor(prefix: string, settings: readonly unknown[]) {
    this.folder = `${prefix}.parts`;
    this.#settings = JSON.stringify(settings);
    try {
      makeFolder(resolve(this.folder));
      this.#claim = new FolderClaim(this.folder, 'save', 'give this command another --output');
    } catch (cause) {
      throw writeError(this.folder, cause);
    }
  }

  /** Where the part of a file lies: a prefix. */
  partOf({ path, bytes, mtimeMs }: InputFile): string {
    const key = [resolve(path), bytes, mtimeMs, this.#settings];
    return join(this.folder, createHash('sha256').update(JSON.stringify(key)).digest('hex').slice(0, 32));
  }

  /** The record of a part that is whole. */
  record(part: string): PartRecord | undefined {
    try {
      const record = JSON.parse(readFileSync(`${part}.json`, 'utf8')) as PartRecord;
      const whole = (['bin', 'idx'] as const).every((kind, i) => statSync(`${part}.${kind}`).size === record.sizes[i]);
      return whole ? record : undefined;
    } catch {
      return undefined; // not there, or cut
    }
  }

  /** Marks a part as done. */
  finish(part: string, counts: Omit<PartRecord, 'sizes'>): PartRecord {
    const [bin, idx] = (['bin', 'idx'] as const).map((kind) => statSync(`${part}.${kind}`).size);
    const record = { ...counts, sizes: [bin as number, idx as number] as const };
    try {
      writeFileSync(`${part}.json.tmp`, JSON.stringify(record));
      renameSync(`${part}.json.tmp`, `${part}.json`);
    } catch (cause) {
      throw writeError(`${part}.json`, cause);
    }
    return record;
  }

  /** Leaves the parts for the next call. */
  release(): void {
    this.#claim.release();
  }

  /** Removes it all. */
  remove(): void {
    this.#claim.release();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

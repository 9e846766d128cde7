import { join } from 'node:path';
import type { DataFingerprint, FileFingerprint } from '../../data/dataset.js';
import { badCheckpoint } from '../files/checkpoint-error.js';
import type { Checkpoint } from '../format/checkpoint.js';
import { STATE_FILE } from '../format/checkpoint-format.js';

/**
 * Compares the data with what it was when the checkpoint was saved: the place in it is a count, which leads elsewhere in
 * other data. Where nothing was read yet, or either side does not tell, there is nothing to compare.
 * @param now the run's own
 * @throws MbridgeError exit 7 that names what changed, unless that is allowed; then it is a warning
 */
export function checkSameData(
  { folder, state }: Pick<Checkpoint, 'folder' | 'state'>,
  now: DataFingerprint | null,
  allowed: boolean,
  warn: (text: string) => void,
): void {
  const { data: before } = state;
  if (before === undefined || before === null || now === null || state.consumed_samples === 0) return;
  const changes = changesOf(before, now);
  if (changes.length === 0) return;
  const text = `the data is not what the run that was saved has read: ${changes.join('; ')}`;
  if (allowed) {
    warn(text);
    return;
  }
  const hint =
    'give it the same data, or set checkpoint.allow_changed_data=true: some samples are then read twice or never';
  throw badCheckpoint('DATA', join(folder, STATE_FILE), text, hint, { before, now });
}

function changesOf(before: DataFingerprint, now: DataFingerprint): string[] {
  const settings = Object.keys({ ...before.settings, ...now.settings });
  const changed = settings.filter((key) => before.settings[key] !== now.settings[key]);
  return [
    ...changed.map((key) => `dataset.${key} was ${shown(before.settings[key])}, is ${shown(now.settings[key])}`),
    ...Array.from({ length: Math.max(before.files.length, now.files.length) }, (_, i) =>
      changeOf(before.files[i], now.files[i]),
    ).filter((change) => change !== undefined),
  ];
}

function changeOf(before: FileFingerprint | undefined, now: FileFingerprint | undefined): string | undefined {
  if (before?.bytes === now?.bytes && before?.sha256 === now?.sha256) return undefined;
  if (before === undefined || now === undefined)
    return `${(before ?? now)?.path} is ${now === undefined ? 'gone' : 'new'}`;
  const name = before.path === now.path ? now.path : `${now.path} (was ${before.path})`;
  if (before.bytes !== now.bytes) return `${name} had ${before.bytes} bytes, has ${now.bytes}`;
  return `${name} had a content of SHA-256 ${before.sha256.slice(0, 16)}, has ${now.sha256.slice(0, 16)}`;
}

function shown(value: string | number | boolean | null | undefined): string {
  return value === undefined ? 'unset' : String(value);
}

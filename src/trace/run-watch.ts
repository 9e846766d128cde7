import { lstatSync, readdirSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { claimFile } from '../base/folder-claim.js';
import { RESULT_FILE, RUN_FILE } from '../job/shared/run-folder.js';
import { readRun } from '../job/shared/run-list.js';
import { describeRun } from './describe-run.js';
import type { RunView } from './view/run-view.js';

/** A folder whose runs are shown: of one run, or of runs, among which new ones may appear. */
export interface RunSource {
  readonly folder: string;
  readonly holds: 'run' | 'runs';
}

interface Seen {
  readonly id: string;
  /** Of the files that tell its state: unchanged, the view is too, unless it runs. */
  readonly signature: string;
  readonly view: RunView | undefined;
}

/** The runs of some folders as they are now. Nothing is read but what lies in the folders themselves: no link is followed. */
export class RunWatch {
  readonly #sources: readonly RunSource[];
  readonly #seen = new Map<string, Seen>();
  #ids = 0;

  constructor(sources: readonly RunSource[]) {
    this.#sources = sources.map(({ folder, holds }) => ({ folder: resolve(folder), holds }));
  }

  /** Ids of the runs that were named themselves. */
  get named(): readonly string[] {
    return this.#sources.flatMap(({ folder, holds }) => (holds === 'run' ? (this.#seen.get(folder)?.id ?? []) : []));
  }

  /** The one that was begun last is at the end. */
  look(): RunView[] {
    const folders = this.#sources.flatMap(({ folder, holds }) => (holds === 'run' ? [folder] : foldersIn(folder)));
    const views = [...new Set(folders)].flatMap((folder) => this.#view(folder) ?? []);
    return views.sort((a, b) => a.started.localeCompare(b.started) || a.name.localeCompare(b.name));
  }

  #view(folder: string): RunView | undefined {
    const before = this.#seen.get(folder);
    const signature = [RUN_FILE, RESULT_FILE, claimFile('run')].map((name) => stampOf(join(folder, name))).join();
    if (before?.signature === signature && before.view?.state !== 'running') return before.view;
    const id = before?.id ?? `${basename(folder)}~${++this.#ids}`;
    const view = viewOf(folder, id);
    this.#seen.set(folder, { id, signature, view });
    return view;
  }
}

/** Folders in a folder; none where it is not there yet. */
function foldersIn(root: string): string[] {
  try {
    const entries = readdirSync(root, { withFileTypes: true });
    return entries.filter((entry) => entry.isDirectory()).map(({ name }) => join(root, name));
  } catch {
    return [];
  }
}

function stampOf(path: string): string {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (stat === undefined) return '-';
  return stat.isFile() ? `${stat.ino}:${stat.size}:${stat.mtimeMs}` : 'other';
}

function viewOf(folder: string, id: string): RunView | undefined {
  const files = [RUN_FILE, RESULT_FILE].map((name) => lstatSync(join(folder, name), { throwIfNoEntry: false }));
  if (files.some((file) => file !== undefined && !file.isFile())) return undefined;
  try {
    const run = readRun(folder);
    return run === undefined ? undefined : describeRun(run, id);
  } catch {
    return undefined; // a record of another shape than ours
  }
}

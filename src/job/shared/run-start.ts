import { existsSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import type { RunConfig } from '../../config/schema.js';

/** How a run is announced: lines for people, and facts for `--json`. */
export interface Announcement {
  readonly lines: readonly string[];
  readonly facts: Readonly<Record<string, unknown>>;
}

/** What whoever starts the ranks does once the run's folder is known. */
export interface RunStart {
  /** Says what runs, before anything of it is started. */
  readonly announce?: (runDir: string, config: RunConfig) => Announcement;
  /** Whether the run evaluates as it trains, so that step lines leave a column for it. */
  readonly validates?: boolean;
  /** Saves in the run's own folder, wherever that comes to lie, in the place of `checkpoint.save`. */
  readonly savesInRunFolder?: boolean;
}

/**
 * The configuration with `checkpoint.save` in the run's folder, if it saves there: where it goes on from, or in a folder of
 * its own, `checkpoints` or `checkpoints-2`, ..., where earlier runs saved beside it.
 */
export function withSavesOf(config: RunConfig, runDir: string, saves: boolean | undefined): RunConfig {
  if (saves !== true) return config;
  const { load } = config.checkpoint;
  const goesOn = load !== null && dirname(resolve(load)) === resolve(runDir);
  const save = goesOn ? resolve(load) : freeFolder(join(runDir, 'checkpoints'));
  return { ...config, checkpoint: { ...config.checkpoint, save } };
}

function freeFolder(wanted: string): string {
  for (let number = 1; ; number++) {
    const folder = number === 1 ? wanted : `${wanted}-${number}`;
    if (!existsSync(folder)) return folder;
  }
}

import { join } from 'node:path';
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

/** Of a run's folder: its checkpoints, where it saves in it. */
const CHECKPOINTS = 'checkpoints';

/** The configuration with `checkpoint.save` in the run's folder, if it saves there. */
export function withSavesOf(config: RunConfig, runDir: string, saves: boolean | undefined): RunConfig {
  if (saves !== true) return config;
  return { ...config, checkpoint: { ...config.checkpoint, save: join(runDir, CHECKPOINTS) } };
}

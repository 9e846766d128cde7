import type { StoreServerOptions } from '../rendezvous/store-server.js';
import type { WorkerReport } from '../shared/worker-report.js';

/** What rank 0 and its thread that serves the store say to each other. */
export interface StoreThreadData {
  store: StoreServerOptions;
  /** Where each rank runs, if that is known. */
  hosts: readonly string[];
  hint: string | undefined;
  /** Results are NDJSON on stdout. */
  json: boolean;
}

/** Sent once: the server listens (`inode`: see StoreServer), or why not. */
export type StoreThreadMessage = { inode: number } | { code: string; message: string; hint?: string | undefined };

/** Where the run's folder is, once it is made. */
export interface StoreThreadFolder {
  runDir: string;
}

/** Rank 0 has failed, and waits until its last words are said. */
export interface StoreThreadOrder {
  report: WorkerReport;
  runDir: string | undefined;
  /** What of the work is saved, for the end. */
  saved: readonly string[];
  /** Set to 1, and notified, when they are; behind it the exit code of the cause, -1 where there was nothing to say. */
  said: Int32Array;
}

/** Where the other ranks leave their reports. */
export const FAILED_KEY = 'failed/';

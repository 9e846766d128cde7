import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { NdjsonTail } from './ndjson-tail.js';
import type { RunWatch } from './run-watch.js';
import { TRACE_FILES, readTraceLine, type TraceFile } from './view/trace-event.js';
import type { RunItem, RunView, TraceLines } from './view/run-view.js';

const LOOK_MS = 500;
/** So many of the newest runs are followed where nobody says which. */
const NEWEST = 4;

/** What a page is told, by name. */
export interface Told {
  runs: readonly RunItem[];
  run: RunView;
  lines: TraceLines;
}

/** Sends one message; resolves when there is room for the next. */
export type Send = <K extends keyof Told>(name: K, data: Told[K]) => Promise<void>;

interface Followed {
  readonly tails: readonly { readonly file: TraceFile; readonly tail: NdjsonTail }[];
  /** The view that was sent last, as JSON. */
  sent: string;
  begun: boolean;
}

/**
 * Tells of runs from their beginning and as they go on, until the signal: these, or where none is named those that the
 * user named and the newest ones; and each that appears later.
 */
export async function streamRuns(
  watch: RunWatch,
  ids: readonly string[],
  send: Send,
  signal: AbortSignal,
): Promise<void> {
  const followed = new Map<string, Followed>();
  let known: Set<string> | undefined;
  let listed = '';
  while (!signal.aborted) {
    const views = watch.look();
    const items = views.map(({ id, name, state, started }): RunItem => ({ id, name, state, started }));
    const list = JSON.stringify(items);
    if (list !== listed) await send('runs', items);
    listed = list;
    const wanted = known === undefined ? chosen(watch, views, ids) : [];
    for (const view of views) {
      const isNew = known !== undefined && !known.has(view.id);
      if (!followed.has(view.id) && (isNew || wanted.includes(view.id))) followed.set(view.id, follow(view.folder));
    }
    known = new Set([...(known ?? []), ...views.map(({ id }) => id)]);
    for (const view of views) {
      const run = followed.get(view.id);
      if (run !== undefined) await tell(view, run, send, signal);
    }
    await setTimeout(LOOK_MS, undefined, { signal }).catch(() => undefined);
  }
}

function chosen(watch: RunWatch, views: readonly RunView[], ids: readonly string[]): readonly string[] {
  if (ids.length > 0) return ids;
  const { named } = watch;
  const others = views.filter(({ id }) => !named.includes(id));
  return [...named, ...others.slice(-NEWEST).map(({ id }) => id)];
}

function follow(folder: string): Followed {
  const files = Object.keys(TRACE_FILES) as TraceFile[];
  const tails = files.map((file) => ({ file, tail: new NdjsonTail(join(folder, TRACE_FILES[file])) }));
  return { tails, sent: '', begun: false };
}

async function tell(view: RunView, run: Followed, send: Send, signal: AbortSignal): Promise<void> {
  const json = JSON.stringify(view);
  if (json !== run.sent) await send('run', view);
  run.sent = json;
  for (const { file, tail } of run.tails) {
    // A page that connects again may know lines of before.
    let fresh = !run.begun;
    for (let more = true; more && !signal.aborted;) {
      const added = await tail.read();
      more = added.more;
      const reset = added.reset || fresh;
      const events = added.lines.flatMap((line) => readTraceLine(file, line) ?? []);
      if (reset || events.length > 0) await send('lines', { id: view.id, file, reset, events });
      fresh = false;
    }
  }
  run.begun = true;
}

import type { RunItem, RunView, TraceLines, WholeRun } from '../view/run-view.js';

/** What a page is told, from where it may come. */
export interface Listener {
  /** All runs that there are, the newest last. */
  runs(items: readonly RunItem[]): void;
  run(view: RunView): void;
  lines(lines: TraceLines): void;
  /** Of some updates only so many are in the page. */
  thinned(id: string, from: number): void;
  connected(is: boolean): void;
}

/** Runs that are in the page itself, as in a report; undefined where it holds none. */
export function embeddedRuns(): readonly WholeRun[] | undefined {
  const data = document.getElementById('report');
  return data === null ? undefined : (JSON.parse(data.textContent) as WholeRun[]);
}

/** Tells of runs that are at hand. */
export function tellRuns(runs: readonly WholeRun[], listener: Listener): void {
  listener.runs(runs.map(({ view: { id, name, state, started } }) => ({ id, name, state, started })));
  for (const { view, lines, thinnedFrom } of runs) {
    listener.run(view);
    for (const each of lines) listener.lines(each);
    if (thinnedFrom !== null) listener.thinned(view.id, thinnedFrom);
  }
}

/** What the server tells of runs as they go on. */
export class LiveSource {
  readonly #listener: Listener;
  #events: EventSource | undefined;

  constructor(listener: Listener) {
    this.#listener = listener;
  }

  /** Follows these runs from their beginning, and those that start later; without ids the ones that the server chooses. */
  follow(ids: readonly string[] = []): void {
    this.#events?.close();
    const query = ids.map((id) => `run=${encodeURIComponent(id)}`).join('&');
    const events = new EventSource(`events${query === '' ? '' : `?${query}`}`);
    this.#events = events;
    const hear = <T>(name: string, tell: (data: T) => void): void => {
      events.addEventListener(name, ({ data }: MessageEvent<string>) => {
        tell(JSON.parse(data) as T);
      });
    };
    hear<RunItem[]>('runs', (items) => this.#listener.runs(items));
    hear<RunView>('run', (view) => this.#listener.run(view));
    hear<TraceLines>('lines', (lines) => this.#listener.lines(lines));
    events.addEventListener('open', () => this.#listener.connected(true));
    // It tries again by itself, and is told everything anew.
    events.addEventListener('error', () => this.#listener.connected(false));
  }
}

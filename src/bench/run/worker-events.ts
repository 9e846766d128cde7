/** What a measuring worker said, and when, in seconds since the command began. */
export interface BenchEvent {
  readonly type: string;
  readonly at: number;
  readonly [key: string]: unknown;
}

/** The events of one type, in order. */
export function eventsOf<Event>(events: readonly BenchEvent[], type: string): (Event & { readonly at: number })[] {
  return events.filter((event) => event.type === type) as unknown as (Event & { readonly at: number })[];
}

import { readFileSync } from 'node:fs';
import { expect } from 'vitest';

/** A span of Chrome's trace event format. */
export interface TraceSpan {
  readonly name: string;
  readonly cat: string;
  readonly ts: number;
  readonly dur: number;
  readonly args?: { readonly microBatch?: number; readonly chunk?: number };
}

interface TraceEvent extends TraceSpan {
  readonly ph: string;
  readonly pid: number;
  readonly tid: number;
  readonly args?: TraceSpan['args'] & { readonly name?: string };
}

/** The spans of a trace, in time, once it is sure that viewers take it: events of known kinds, whose tracks have names. */
export function readTrace(file: string, rank: number): TraceSpan[] {
  const { traceEvents } = JSON.parse(readFileSync(file, 'utf8')) as { traceEvents: TraceEvent[] };
  const names = traceEvents.filter(({ ph, name }) => ph === 'M' && name === 'thread_name');
  const tracks = new Map(names.map(({ tid, args }) => [tid, args?.name]));
  const spans = traceEvents.filter(({ ph }) => ph !== 'M');
  for (const { ph, pid, tid, cat, ts, dur } of spans) {
    expect([ph, pid, tracks.get(tid)]).toEqual(['X', rank, cat]);
    expect(ts).toBeGreaterThan(Date.now() * 1000 - 3600e6);
    expect(ts + dur).toBeLessThan(Date.now() * 1000);
    expect(dur).toBeGreaterThanOrEqual(0);
  }
  return spans.sort((a, b) => a.ts - b.ts);
}

/** Whether one span lies within another, but for what clocks do not tell. */
export function within(inner: TraceSpan, outer: TraceSpan, slackUs = 2): boolean {
  return inner.ts >= outer.ts - slackUs && inner.ts + inner.dur <= outer.ts + outer.dur + slackUs;
}

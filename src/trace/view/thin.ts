import type { StepPoint, TraceEvent } from './trace-event.js';

/** Events without most of their updates. */
export interface Thinned {
  readonly events: readonly TraceEvent[];
  /** Updates that there were; null where all are left. */
  readonly from: number | null;
}

/**
 * At most about so many updates, and all other events. Of each stretch of updates the ones with the lowest and the
 * highest loss stay, so that a jump is still to be seen; so do the first and the last.
 */
export function thin(events: readonly TraceEvent[], most: number): Thinned {
  const steps = events.filter((event) => event.type === 'step');
  if (steps.length <= most) return { events, from: null };
  const stretch = Math.ceil((2 * steps.length) / most);
  const kept = new Set<StepPoint>([steps[0]!, steps.at(-1)!]);
  for (let at = 0; at < steps.length; at += stretch) {
    const part = steps.slice(at, at + stretch);
    kept.add(part.reduce((a, b) => (lossOf(b) < lossOf(a) ? b : a)));
    kept.add(part.reduce((a, b) => (lossOf(b) > lossOf(a) ? b : a)));
  }
  return { events: events.filter((event) => event.type !== 'step' || kept.has(event)), from: steps.length };
}

function lossOf({ loss }: StepPoint): number {
  return loss ?? 0;
}

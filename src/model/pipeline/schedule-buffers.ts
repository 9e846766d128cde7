import type { ComputeAction, Schedule, ScheduleAction } from './actions.js';

/**
 * How many buffers one chunk of a rank needs of each kind, so that none is written while it is in use, provided that
 * an exchange waits for the computes before it in the list. Micro-batches enter and leave each kind in ascending order,
 * so buffer {@link slotOf} is free whenever it is needed.
 */
export interface BufferNeeds {
  /** What a forward saves, until its backward is done (0 when there are no backwards). */
  readonly inFlight: number;
  /** Stage inputs kept for the backward: from their receive (the forward itself on the first stage) until it is done. */
  readonly inputs: number;
  /** Stage inputs only read by the forward: from their receive until it is done. */
  readonly waitingInputs: number;
  /** Output gradients: from their receive until the backward is done. */
  readonly waitingGradients: number;
}

/** Buffers of each chunk of a pipeline rank. */
export function bufferNeeds(schedule: Schedule, rank: number): BufferNeeds[] {
  const actions = schedule.ranks[rank];
  if (actions === undefined) throw new RangeError(`no pipeline rank ${rank} in a schedule of ${schedule.stages}`);
  return Array.from({ length: schedule.chunks }, (_, chunk) => chunkNeeds(actions, chunk));
}

/** Activation slots of each chunk of a pipeline rank: micro-batches forward done (or running), backward not yet. */
export function maxInFlight(schedule: Schedule, rank: number): number[] {
  return bufferNeeds(schedule, rank).map((needs) => needs.inFlight);
}

/** The buffer of a micro-batch among `slots` (a number from {@link BufferNeeds} for the same chunk). */
export function slotOf(microBatch: number, slots: number): number {
  return microBatch % slots;
}

/** Whether this is the chunk's first micro-batch: its backward writes gradients, later ones add to them. */
export function isFirstMicroBatch(action: ComputeAction): boolean {
  return action.microBatch === 0;
}

/** Whether this is the chunk's last micro-batch: after its backward the gradients are complete and may be reduced. */
export function isLastMicroBatch(schedule: Schedule, action: ComputeAction): boolean {
  return action.microBatch === schedule.microBatches - 1;
}

function chunkNeeds(actions: readonly ScheduleAction[], chunk: number): BufferNeeds {
  const [inFlight, inputs, waitingInputs, waitingGradients] = [counter(), counter(), counter(), counter()];
  const hasBackward = actions.some((action) => action.kind === 'backward');
  const received = new Set<number>();
  for (const action of actions) {
    if (action.kind === 'exchange') {
      for (const transfer of action.transfers) {
        if (transfer.direction !== 'receive' || transfer.chunk !== chunk) continue;
        if (transfer.what === 'gradient') {
          waitingGradients.take();
        } else {
          received.add(transfer.microBatch);
          waitingInputs.take();
          if (hasBackward) inputs.take();
        }
      }
    } else if (action.chunk === chunk) {
      const hasInput = received.has(action.microBatch);
      if (action.kind === 'forward') {
        if (hasInput) waitingInputs.free();
        if (hasBackward) inFlight.take();
        if (hasBackward && !hasInput) inputs.take();
      } else {
        inFlight.free();
        inputs.free();
        if (waitingGradients.used() > 0) waitingGradients.free();
      }
    }
  }
  return {
    inFlight: inFlight.peak(),
    inputs: inputs.peak(),
    waitingInputs: waitingInputs.peak(),
    waitingGradients: waitingGradients.peak(),
  };
}

function counter(): { take: () => void; free: () => void; used: () => number; peak: () => number } {
  let used = 0;
  let peak = 0;
  return {
    take: () => void (peak = Math.max(peak, ++used)),
    free: () => void used--,
    used: () => used,
    peak: () => peak,
  };
}

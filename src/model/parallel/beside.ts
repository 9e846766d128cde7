import type { CommGroup } from '../../groups/comm/comm-group.js';
import { STREAM } from '../../engine/device.js';
import type { EventLease } from '../../engine/event-lease.js';
import type { Tensor } from '../../engine/tensor.js';

/** A collective that was started; `wait` makes the compute stream wait for it and gives the result. */
export interface Pending {
  wait(): Tensor;
}

/** Enough events that a collective in flight never shares one with the next. */
const EVENTS = 8;

/** Issues a group's collectives on the tensor stream, so that they can hide behind what the compute stream does. */
export class Beside {
  readonly #group: CommGroup | null;
  #events: EventLease | null = null;

  /** @param group null while only planning: nothing can be communicated */
  constructor(group: CommGroup | null) {
    this.#group = group;
  }

  /** The group, to communicate over. */
  get group(): CommGroup {
    if (this.#group === null) throw new Error('the group was only planned');
    return this.#group;
  }

  /** Starts what `issue` does, after all that the compute stream has been given. */
  start(result: Tensor, issue: (group: CommGroup) => void): Pending {
    const { group } = this;
    const { device } = group;
    const events = (this.#events ??= device.lease(EVENTS));
    const [ready, done] = [events.next(), events.next()];
    device.record(ready, STREAM.compute);
    device.wait(STREAM.tensor, ready);
    issue(group);
    device.record(done, STREAM.tensor);
    return {
      wait: () => {
        device.wait(STREAM.compute, done);
        return result;
      },
    };
  }

  /** Gives back what the collectives took from the device; a later one takes it again. */
  dispose(): void {
    this.#events?.end();
    this.#events = null;
  }
}

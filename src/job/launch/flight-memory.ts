import { closeSync, constants, ftruncateSync, openSync, readSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { decodeFlightRecord, FLIGHT_BYTES, type FlightRecord } from '../shared/flight-record.js';

/** `open` makes a file without a name, which nothing can leave behind. Linux's number, which Node does not give. */
const O_TMPFILE = 0o20000000 | constants.O_DIRECTORY;

/** The memory in which a worker records its collectives: a file of ours that it maps, so that what was recorded is there whatever has become of it. */
export class FlightMemory {
  readonly file: number;
  #open = true;

  private constructor(file: number) {
    this.file = file;
  }

  /** Null where no memory can be had: the worker then records for itself alone. */
  static open(): FlightMemory | null {
    for (const folder of ['/dev/shm', tmpdir()]) {
      try {
        const file = openSync(folder, O_TMPFILE | constants.O_RDWR, 0o600);
        ftruncateSync(file, FLIGHT_BYTES);
        return new FlightMemory(file);
      } catch {
        // the next may have it
      }
    }
    return null;
  }

  /** What is recorded by now; undefined where the worker has not come to it. */
  read(rank: number): FlightRecord | undefined {
    if (!this.#open) return undefined;
    const memory = Buffer.alloc(FLIGHT_BYTES);
    readSync(this.file, memory, 0, FLIGHT_BYTES, 0);
    return decodeFlightRecord(memory, rank, process.hrtime.bigint());
  }

  close(): void {
    if (this.#open) closeSync(this.file);
    this.#open = false;
  }
}

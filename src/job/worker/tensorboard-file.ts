import { mkdirSync, openSync } from 'node:fs';
import { hostname } from 'node:os';
import { dirname, join } from 'node:path';
import { BestEffortFile } from '../shared/best-effort-file.js';
import type { WorkerEvent } from '../shared/messages.js';
import { fileVersion, record, scalars } from './tensorboard-records.js';

/**
 * A TensorBoard event file of a run's numbers: each number of an event that names its step is a scalar, called
 * `train/loss` where it is of a training step, else by the event's type. Every process that has numbers has a file of its own.
 */
export class TensorboardFile {
  readonly #file: BestEffortFile;
  #begun = false;

  /** @param folder is made with the first number */
  constructor(folder: string, warn: (text: string) => void) {
    const started = String(Math.floor(Date.now() / 1000)).padStart(10, '0');
    const path = join(folder, `events.out.tfevents.${started}.${hostname()}.${process.pid}`);
    const open = (): number => {
      mkdirSync(dirname(path), { recursive: true });
      return openSync(path, 'a');
    };
    this.#file = new BestEffortFile(path, open, warn);
  }

  add(event: WorkerEvent): void {
    const { type, step, ...rest } = event as WorkerEvent & { step?: unknown };
    if (typeof step !== 'number') return;
    const prefix = type === 'step' ? 'train' : type;
    const values = Object.entries(rest)
      .filter((entry): entry is [string, number] => typeof entry[1] === 'number' && entry[0] !== 'rank')
      .map(([key, value]) => ({ tag: `${prefix}/${key}`, value }));
    if (values.length === 0) return;
    const seconds = Date.now() / 1000;
    if (!this.#begun) this.#file.append(record(fileVersion(seconds)));
    this.#begun = true;
    this.#file.append(record(scalars(seconds, step, values)));
  }
}

import { Worker } from 'node:worker_threads';
import { compiledFile } from '../../base/package-root.js';
import { checkpointIoError } from './checkpoint-error.js';
import type { FileRecord } from './file-record.js';
import type { HostImage } from './host-image.js';
import type { WriteJob, WriteReply } from './writer-thread.js';

/** Writes files in a thread of its own: the training thread spends its time inside collectives and kernel launches. */
export class BackgroundWriter {
  readonly #thread: Worker;
  readonly #waiting = new Map<
    number,
    { path: string; resolve: (r: FileRecord) => void; reject: (e: unknown) => void }
  >();
  #nextId = 1;

  constructor() {
    this.#thread = new Worker(compiledFile('checkpoint/files/writer-thread.js'));
    this.#thread.unref(); // whoever needs the file awaits it
    this.#thread.on('message', (reply: WriteReply) => this.#receive(reply));
    this.#thread.on('error', (error) => this.#failAll(error));
    this.#thread.on('exit', () => this.#failAll(new Error('the writing thread has ended')));
  }

  /**
   * Writes an image to a new file, durably. Its memory must not change before the promise settles.
   * @throws MbridgeError exit 7 naming the file
   */
  write(path: string, { chunks }: HostImage<SharedArrayBuffer>): Promise<FileRecord> {
    const job: WriteJob = { id: this.#nextId++, path, chunks };
    return new Promise((resolve, reject) => {
      this.#waiting.set(job.id, { path, resolve, reject });
      this.#thread.postMessage(job);
    });
  }

  async close(): Promise<void> {
    await this.#thread.terminate();
  }

  #receive(reply: WriteReply): void {
    const entry = this.#waiting.get(reply.id);
    this.#waiting.delete(reply.id);
    if (entry === undefined) return;
    if ('record' in reply) return entry.resolve(reply.record);
    const { errno, message } = reply.error;
    const cause = Object.assign(new Error(message), errno === undefined ? {} : { code: errno });
    entry.reject(checkpointIoError('write', entry.path, cause));
  }

  #failAll(error: unknown): void {
    const entries = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const { path, reject } of entries) reject(checkpointIoError('write', path, error));
  }
}

/** Parts that an image's memory is taken in: one allocation is limited to a few GiB. A multiple of every block. */
const CHUNK_BYTES = 1 << 30;

/**
 * The bytes of a file before they are written, in memory that threads share. Nothing here is copied when it is handed
 * to the writing thread.
 */
export class HostImage {
  readonly bytes: number;
  readonly chunks: readonly SharedArrayBuffer[];

  constructor(bytes: number) {
    this.bytes = bytes;
    this.chunks = Array.from({ length: Math.ceil(bytes / CHUNK_BYTES) }, (_, i) => {
      return new SharedArrayBuffer(Math.min(CHUNK_BYTES, bytes - i * CHUNK_BYTES));
    });
  }

  /** The memory of bytes [position, position + count), in parts that follow each other. */
  views(position: number, count: number): Uint8Array[] {
    const views: Uint8Array[] = [];
    for (let at = position; at < position + count;) {
      const inChunk = at % CHUNK_BYTES;
      const length = Math.min(CHUNK_BYTES - inChunk, position + count - at);
      views.push(new Uint8Array(this.chunks[Math.floor(at / CHUNK_BYTES)] as SharedArrayBuffer, inChunk, length));
      at += length;
    }
    return views;
  }

  set(position: number, source: Uint8Array): void {
    let done = 0;
    for (const view of this.views(position, source.length)) {
      view.set(source.subarray(done, done + view.length));
      done += view.length;
    }
  }
}

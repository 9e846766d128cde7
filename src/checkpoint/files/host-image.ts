/** Parts that an image's memory is taken in: one allocation is limited to a few GiB. A multiple of every block. */
const CHUNK_BYTES = 1 << 30;

/** The bytes of a file before they are written, or where they are kept. Nothing here is copied when threads share it. */
export class HostImage<Memory extends ArrayBufferLike = ArrayBufferLike> {
  readonly bytes: number;
  readonly chunks: readonly Memory[];

  /** @param take gives so many bytes, those from `position` of the image on */
  constructor(bytes: number, take: (position: number, bytes: number) => Memory) {
    this.bytes = bytes;
    this.chunks = Array.from({ length: Math.ceil(bytes / CHUNK_BYTES) }, (_, i) => {
      return take(i * CHUNK_BYTES, Math.min(CHUNK_BYTES, bytes - i * CHUNK_BYTES));
    });
  }

  /** In memory that threads share. */
  static shared(bytes: number): HostImage<SharedArrayBuffer> {
    return new HostImage(bytes, (_, count) => new SharedArrayBuffer(count));
  }

  /** The memory of bytes [position, position + count), in parts that follow each other. */
  views(position: number, count: number): Uint8Array[] {
    const views: Uint8Array[] = [];
    for (let at = position; at < position + count;) {
      const inChunk = at % CHUNK_BYTES;
      const length = Math.min(CHUNK_BYTES - inChunk, position + count - at);
      views.push(new Uint8Array(this.chunks[Math.floor(at / CHUNK_BYTES)] as Memory, inChunk, length));
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

import { STREAM, type Device, type Stream } from './device.js';

/**
 * Calls of one stream that a GPU runs as a whole: the host gives them once, and later runs cost it one call. They work on
 * the same memory with the same scalars every time.
 */
export class Graph {
  readonly #device: Device;
  readonly #stream: Stream;
  #handle: number | null;

  private constructor(device: Device, stream: Stream, handle: number) {
    this.#device = device;
    this.#stream = stream;
    this.#handle = handle;
  }

  /** Whether the device can keep calls: a CPU runs them at once, and so does a GPU that waits after each of them. */
  static serves(device: Device): boolean {
    return device.kind === 'cuda' && process.env['MBRIDGE_CUDA_SYNC'] !== '1';
  }

  /**
   * Keeps what `enqueue` gives the stream; nothing of it runs.
   * @param enqueue makes calls that were made once before, so that they have chosen their kernels
   */
  static capture(device: Device, enqueue: () => void, stream: Stream = STREAM.compute): Graph {
    const { binding, handle } = device;
    binding.captureBegin(handle, stream);
    let failed = true;
    try {
      enqueue();
      failed = false;
    } finally {
      if (failed) abandonCapture(device, stream);
    }
    return new Graph(device, stream, binding.captureEnd(handle, stream));
  }

  /** Runs the calls after what the stream has been given. */
  launch(): void {
    if (this.#handle === null) throw new Error('the graph was given back');
    this.#device.binding.graphLaunch(this.#device.handle, this.#stream, this.#handle);
  }

  /** Gives it back, once or more often; a launch that runs is not disturbed. */
  end(): void {
    if (this.#handle !== null) this.#device.binding.graphDestroy(this.#handle);
    this.#handle = null;
  }
}

/** Ends the capture, so that the stream can be used again; the failure that comes after this says what was wrong. */
function abandonCapture({ binding, handle }: Device, stream: Stream): void {
  try {
    binding.graphDestroy(binding.captureEnd(handle, stream));
  } catch {
    // A capture that an invalid call broke has ended, with an error of its own.
  }
}

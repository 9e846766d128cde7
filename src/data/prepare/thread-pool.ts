import { Worker } from 'node:worker_threads';
import { compiledFile } from '../../base/package-root.js';
import type { Block } from './blocks.js';
import type { BlockReply, ThreadSettings } from './tokenize-thread.js';
import type { TokenizedBlock } from './tokenize-block.js';

interface Waiting {
  readonly resolve: (result: TokenizedBlock) => void;
  readonly reject: (cause: unknown) => void;
}

/** Threads that tokenise. A block goes to the thread that has the fewest. */
export class ThreadPool {
  readonly #threads: readonly { readonly worker: Worker; readonly waiting: Map<number, Waiting> }[];
  #next = 0;
  #failure: { readonly cause: unknown } | undefined;

  constructor(count: number, settings: ThreadSettings) {
    this.#threads = Array.from({ length: count }, () => {
      const worker = new Worker(compiledFile('data/prepare/tokenize-thread.js'), { workerData: settings });
      const waiting = new Map<number, Waiting>();
      worker.on('message', ({ id, result }: BlockReply) => {
        waiting.get(id)?.resolve(result);
        waiting.delete(id);
      });
      worker.on('error', (cause) => {
        this.#failure ??= { cause };
        for (const { reject } of waiting.values()) reject(cause);
        waiting.clear();
      });
      return { worker, waiting };
    });
  }

  /** Rejects with what ended a thread. */
  tokenize(block: Block): Promise<TokenizedBlock> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure.cause as Error);
    const id = this.#next++;
    const { worker, waiting } = this.#threads.reduce((a, b) => (b.waiting.size < a.waiting.size ? b : a));
    return new Promise((resolve, reject) => {
      waiting.set(id, { resolve, reject });
      worker.postMessage({ id, block }, block.kind === 'values' ? [] : [block.bytes.buffer]);
    });
  }

  async close(): Promise<void> {
    await Promise.all(this.#threads.map(({ worker }) => worker.terminate()));
  }
}

import { execFileSync } from 'node:child_process';

/** Two network namespaces with a cable between them, as two nodes of a network of their own. */
export class TwoNodes {
  /** Of node 0, from both. */
  static readonly ADDRESS = '10.77.0.1';
  readonly #names: readonly [string, string];

  private constructor() {
    this.#names = [`mbridge-a-${process.pid}`, `mbridge-b-${process.pid}`];
  }

  /** Makes them, or says why that is not possible here. */
  static make(): TwoNodes | string {
    const nodes = new TwoNodes();
    const [a, b] = nodes.#names;
    try {
      for (const name of [a, b]) {
        ip('netns', 'add', name);
        ip('-n', name, 'link', 'set', 'lo', 'up');
      }
      ip('-n', a, 'link', 'add', 'cable', 'type', 'veth', 'peer', 'name', 'cable', 'netns', b);
      for (const [i, name] of [a, b].entries()) {
        ip('-n', name, 'address', 'add', `10.77.0.${i + 1}/24`, 'dev', 'cable');
        ip('-n', name, 'link', 'set', 'cable', 'up');
      }
      return nodes;
    } catch (error) {
      nodes.remove();
      return `no network namespaces here: ${error instanceof Error ? error.message.trim() : String(error)}`;
    }
  }

  /** The command that runs another one on a node. The process is the other one's. */
  command(node: number): string[] {
    return ['ip', 'netns', 'exec', this.#names[node] ?? ''];
  }

  /** Bytes that came to node 1 over the cable. */
  received(): number {
    return Number(
      execFileSync('ip', ['netns', 'exec', this.#names[1], 'cat', '/sys/class/net/cable/statistics/rx_bytes']),
    );
  }

  /** Pulls the cable. */
  cut(): void {
    ip('-n', this.#names[1], 'link', 'set', 'cable', 'down');
  }

  remove(): void {
    for (const name of this.#names) {
      try {
        ip('netns', 'delete', name);
      } catch {
        // it was not made
      }
    }
  }
}

function ip(...args: readonly string[]): void {
  execFileSync('ip', args, { stdio: ['ignore', 'ignore', 'pipe'] });
}

import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { RunConfig } from '../../config/schema.js';
import { isLoopback, refusalOf } from '../../base/http-requests.js';
import { systemError } from '../../base/system-error.js';
import type { SavedCheckpoint, WorkerEvent } from './messages.js';
import { PROMETHEUS_TYPE, prometheusText, type PrometheusMetric } from './prometheus-text.js';

/** Numbers of step lines, and what they are scraped as. */
const STEP_METRICS: readonly (Omit<PrometheusMetric, 'samples'> & { key: string; scale?: number })[] = [
  { key: 'step', name: 'mbridge_step', help: 'The last update that was reported.', type: 'gauge' },
  { key: 'loss', name: 'mbridge_loss', help: 'Training loss of that update, in nats a token.', type: 'gauge' },
  { key: 'grad_norm', name: 'mbridge_grad_norm', help: 'Norm of the whole gradient, before clipping.', type: 'gauge' },
  { key: 'lr', name: 'mbridge_learning_rate', help: 'Learning rate.', type: 'gauge' },
  { key: 'tokens_seen', name: 'mbridge_tokens_total', help: 'Tokens of all updates.', type: 'counter' },
  {
    ...{ key: 'tokens_per_s_per_device', name: 'mbridge_tokens_per_second_per_device', type: 'gauge' },
    help: 'Tokens per second and GPU, or process on a CPU.',
  },
  {
    key: 'mfu',
    name: 'mbridge_mfu_ratio',
    help: "Share of the GPU's peak in bf16 that the model's work is.",
    type: 'gauge',
  },
  { key: 'memory_bytes', name: 'mbridge_memory_bytes', help: 'Memory in use on rank 0.', type: 'gauge' },
  { key: 'step_time_ms', name: 'mbridge_step_seconds', help: 'Time of an update.', type: 'gauge', scale: 1e-3 },
  {
    ...{ key: 'data_ms', name: 'mbridge_data_wait_seconds', type: 'gauge', scale: 1e-3 },
    help: 'Of it, the wait for samples on rank 0.',
  },
];

/** What is scraped of a run: the numbers of its last update, and what happened since it was started. */
export class RunNumbers {
  readonly #train: number;
  #step: WorkerEvent | undefined;
  #stepTime: number | undefined;
  readonly #validation = new Map<string, number>();
  #saved: { readonly step: number; readonly seconds: number } | undefined;
  #restarts = 0;

  /** @param trainIters updates that there are to be */
  constructor(trainIters: number) {
    this.#train = trainIters;
  }

  add(event: WorkerEvent): void {
    if (event.type === 'step') [this.#step, this.#stepTime] = [event, Date.now() / 1000];
    const { type, set, loss } = event as { type: string; set?: unknown; loss?: unknown };
    if (type === 'evaluation' && typeof set === 'string' && typeof loss === 'number') this.#validation.set(set, loss);
  }

  saved({ step }: SavedCheckpoint): void {
    this.#saved = { step, seconds: Date.now() / 1000 };
  }

  restarted(): void {
    this.#restarts++;
  }

  text(): string {
    const one = (value: unknown, scale = 1): PrometheusMetric['samples'] =>
      typeof value === 'number' ? [{ value: value * scale }] : [];
    return prometheusText([
      ...STEP_METRICS.map(({ key, scale, ...metric }) => ({ ...metric, samples: one(this.#step?.[key], scale) })),
      {
        ...{ name: 'mbridge_step_timestamp_seconds', type: 'gauge', samples: one(this.#stepTime) },
        help: 'When that update was reported.',
      },
      {
        ...{ name: 'mbridge_train_iters', type: 'gauge', samples: one(this.#train) },
        help: 'Updates that there are to be.',
      },
      {
        ...{ name: 'mbridge_validation_loss', type: 'gauge', help: 'Loss of the last evaluation, of each set.' },
        samples: [...this.#validation].map(([set, value]) => ({ labels: { set }, value })),
      },
      {
        ...{ name: 'mbridge_restarts_total', type: 'counter', samples: one(this.#restarts) },
        help: 'Restarts after a failure, by this launcher.',
      },
      {
        ...{ name: 'mbridge_checkpoint_step', type: 'gauge', samples: one(this.#saved?.step) },
        help: 'Updates that the last checkpoint holds.',
      },
      {
        ...{ name: 'mbridge_checkpoint_timestamp_seconds', type: 'gauge', samples: one(this.#saved?.seconds) },
        help: 'When the last checkpoint was whole.',
      },
    ]);
  }
}

/** `/metrics` of a run, for Prometheus. */
export class PrometheusEndpoint {
  readonly numbers: RunNumbers;
  readonly #server: Server;

  private constructor(numbers: RunNumbers, server: Server) {
    this.numbers = numbers;
    this.#server = server;
  }

  /**
   * Where section `logger` asks for it, else null. It keeps no process alive.
   * @throws MbridgeError MB_PROMETHEUS_PORT (exit 4) where it cannot listen
   */
  static async open({ logger, train }: RunConfig): Promise<PrometheusEndpoint | null> {
    const { prometheus_port: port, prometheus_host: host } = logger;
    if (port == null) return null;
    const numbers = new RunNumbers(train.train_iters);
    const server = createServer((request, response) => {
      const refused = refusalOf(request, isLoopback(host) ? host : null);
      const found = refused === undefined && /^\/metrics(\?|$)/.test(request.url ?? '');
      response.writeHead(found ? 200 : (refused?.status ?? 404), {
        'Content-Type': found ? PROMETHEUS_TYPE : 'text/plain; charset=utf-8',
        'X-Content-Type-Options': 'nosniff',
      });
      const text = found ? numbers.text() : `${refused?.why ?? 'not found: ask for /metrics'}\n`;
      response.end(request.method === 'HEAD' ? undefined : text);
    });
    server.listen({ host, port });
    try {
      await once(server, 'listening');
    } catch (error) {
      const what = `serve /metrics on port ${port} of ${host}`;
      const hint =
        'choose a free port with logger.prometheus_port, or an address of this machine with logger.prometheus_host';
      throw systemError(error, { code: 'MB_PROMETHEUS_PORT', what, hint }) ?? error;
    }
    server.unref();
    return new PrometheusEndpoint(numbers, server);
  }

  close(): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }
}

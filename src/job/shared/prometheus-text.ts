/** A number that is scraped, with what it is told apart by. */
export interface PrometheusSample {
  readonly labels?: Readonly<Record<string, string>>;
  readonly value: number;
}

/** One metric; without samples it is left out. */
export interface PrometheusMetric {
  readonly name: string;
  readonly help: string;
  readonly type: 'counter' | 'gauge';
  readonly samples: readonly PrometheusSample[];
}

export const PROMETHEUS_TYPE = 'text/plain; version=0.0.4; charset=utf-8';

/** Metrics in Prometheus's text format (https://prometheus.io/docs/instrumenting/exposition_formats). */
export function prometheusText(metrics: readonly PrometheusMetric[]): string {
  return metrics
    .filter(({ samples }) => samples.length > 0)
    .map(({ name, help, type, samples }) => {
      const head = `# HELP ${name} ${escape(help, false)}\n# TYPE ${name} ${type}\n`;
      return head + samples.map(({ labels, value }) => `${name}${labelsText(labels)} ${numberText(value)}\n`).join('');
    })
    .join('');
}

function labelsText(labels: Readonly<Record<string, string>> = {}): string {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}="${escape(value, true)}"`);
  return pairs.length === 0 ? '' : `{${pairs.join(',')}}`;
}

function escape(text: string, quotes: boolean): string {
  const escaped = text.replaceAll('\\', '\\\\').replaceAll('\n', '\\n');
  return quotes ? escaped.replaceAll('"', '\\"') : escaped;
}

function numberText(value: number): string {
  if (Number.isFinite(value)) return String(value);
  return Number.isNaN(value) ? 'NaN' : value > 0 ? '+Inf' : '-Inf';
}

import { createRequire } from 'node:module';

interface ParsedMetric {
  readonly name: string;
  readonly help: string;
  /** `COUNTER`, `GAUGE`, ... */
  readonly type: string;
  readonly metrics: readonly { readonly value: string; readonly labels?: Readonly<Record<string, string>> }[];
}

const require = createRequire(import.meta.url);

/** Prometheus's text format by a parser that is not ours (and comes without types). */
export const parsePrometheus = require('parse-prometheus-text-format') as (text: string) => ParsedMetric[];

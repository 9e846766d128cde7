/** Variable that carries the options of a measuring worker, as JSON. */
export const BENCH_OPTIONS = 'MBRIDGE_BENCH_OPTIONS';

export function readBenchOptions<Options>(env: NodeJS.ProcessEnv = process.env): Options {
  const text = env[BENCH_OPTIONS];
  if (text === undefined) throw new Error(`${BENCH_OPTIONS} is not set: mbridge bench starts this worker`);
  return JSON.parse(text) as Options;
}

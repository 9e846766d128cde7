import { defineConfig } from 'vitest/config';

/** `npm run test:gpu`: what needs GPUs, on as many as are here. Ends with 4 where there is none. */
export default defineConfig({
  test: {
    include: ['test/gpu/**/*.test.ts'],
    globalSetup: ['test/built.ts', 'test/gpu/present.ts'],
    // The GPUs are used by one test at a time.
    pool: 'forks',
    maxWorkers: 1,
    fileParallelism: false,
    testTimeout: 600_000,
    reporters: ['default', './scripts/closing-line-reporter.mjs'],
  },
});

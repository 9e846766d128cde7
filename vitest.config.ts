import { configDefaults, defineConfig } from 'vitest/config';

/** `npm run test:full`: the same files with the long tables of cases (every layout, every fixture). */
const full = process.env['MBRIDGE_TEST_FULL'] === '1';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    // npm run test:gpu
    exclude: [...configDefaults.exclude, 'test/gpu/**'],
    globalSetup: ['test/built.ts'],
    // Tests start whole runs of several processes: more files at once would only share the same cores.
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: full ? 600_000 : 60_000,
    hookTimeout: 60_000,
    reporters: ['default', './scripts/closing-line-reporter.mjs'],
  },
});

import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { format, resolveConfig as prettierConfig } from 'prettier';
import { expect, expectTypeOf, test } from 'vitest';
import type { z } from 'zod';
import { configJsonSchema, sectionKeys } from '../../src/config/json-schema.js';
import { resolveConfig } from '../../src/config/resolve.js';
import type { RunConfig, runConfigSchema } from '../../src/config/schema.js';

const CONFIGS = fileURLToPath(new URL('../../configs/', import.meta.url));

test('configs/schema.json is that of the schema (vitest -u writes it)', async () => {
  const options = await prettierConfig(`${CONFIGS}schema.json`);
  const text = await format(JSON.stringify(configJsonSchema()), { ...options, parser: 'json' });
  await expect(text).toMatchFileSnapshot(`${CONFIGS}schema.json`);
});

test('the written types are those of the schema', () => {
  expectTypeOf<RunConfig>().toEqualTypeOf<z.output<typeof runConfigSchema>>();
});

test('every section and key has a help text', () => {
  const silent = Object.entries(configJsonSchema().properties ?? {}).flatMap(([section, schema]) => [
    ...(schema.description === undefined ? [section] : []),
    ...Object.entries(sectionKeys(schema))
      .filter(([key, { description }]) => description === undefined && key !== 'type')
      .map(([key]) => `${section}.${key}`),
  ]);
  expect(silent).toEqual([]);
});

test.each(readdirSync(CONFIGS).filter((name) => name.endsWith('.yaml')))('configs/%s is complete', (name) => {
  expect(resolveConfig({ file: CONFIGS + name }).train.train_iters).toBeGreaterThan(0);
});

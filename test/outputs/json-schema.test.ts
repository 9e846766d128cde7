import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { format, resolveConfig as prettierConfig } from 'prettier';
import { expect, test } from 'vitest';
import { configJsonSchema } from '../../src/config/json-schema.js';
import { outputSchemas } from '../../src/outputs/json-schema.js';

const FILE = fileURLToPath(new URL('../../configs/output-schema.json', import.meta.url));

test('configs/output-schema.json is that of the schemas (vitest -u writes it)', async () => {
  const options = await prettierConfig(FILE);
  const text = await format(JSON.stringify(outputSchemas()), { ...options, parser: 'json' });
  await expect(text).toMatchFileSnapshot(FILE);
});

/** All keys that a schema names, at any depth. */
function keysOf(schema: unknown): string[] {
  if (typeof schema !== 'object' || schema === null) return [];
  const { properties = {} } = schema as { properties?: object };
  return [...Object.keys(properties), ...Object.values(schema).flatMap(keysOf)];
}

test('every key is snake_case, and a time has its unit in its name', () => {
  const keys = [...new Set(keysOf(outputSchemas()))];
  expect(keys.length).toBeGreaterThan(150);
  expect(keys.filter((key) => !/^[a-z][a-z0-9]*(_[a-z0-9]+)*$/.test(key))).toEqual([]);
  // A key that is a word for a time, and no unit, would leave it open.
  expect(keys.filter((key) => /(^|_)(seconds|duration|elapsed|wait|wall|millis)$/.test(key))).toEqual([]);
});

test('every output names its version and type, says what it is, and takes no key that it does not name', () => {
  const { $defs } = outputSchemas();
  for (const [type, def] of Object.entries($defs)) {
    for (const each of 'anyOf' in def ? (def.anyOf as object[]) : [def]) {
      expect(each).toMatchObject({
        additionalProperties: false,
        description: expect.stringMatching(/\S/) as string,
        required: expect.arrayContaining(['schema', 'type']) as string[],
        properties: { schema: { const: 1 }, type: { const: type } },
      });
    }
  }
});

test('both schemas of the package are found by their names', () => {
  const require = createRequire(import.meta.url);
  expect(require('mbridge/output-schema.json')).toEqual(JSON.parse(JSON.stringify(outputSchemas())));
  expect(require('mbridge/schema.json')).toEqual(JSON.parse(JSON.stringify(configJsonSchema())));
});

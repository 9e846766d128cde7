import { z } from 'zod';
import { OUTPUTS } from './index.js';

/** The part of JSON Schema that ours uses. */
export interface OutputSchemas {
  readonly $schema: string;
  readonly title: string;
  readonly description: string;
  readonly oneOf: readonly { readonly $ref: string }[];
  readonly $defs: Readonly<Record<string, object>>;
}

/** JSON Schema of every output, each under its type in `$defs`. */
export function outputSchemas(): OutputSchemas {
  const $defs = Object.fromEntries(
    Object.entries(OUTPUTS).map(([type, schema]) => {
      const own = z.toJSONSchema(schema, {
        override: ({ jsonSchema }) => {
          if (jsonSchema.minimum === Number.MIN_SAFE_INTEGER) delete jsonSchema.minimum;
          if (jsonSchema.maximum === Number.MAX_SAFE_INTEGER) delete jsonSchema.maximum;
        },
      });
      delete own.$schema;
      return [type, own];
    }),
  );
  return {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    title: 'mbridge output',
    description: 'an object that is printed with --json, or in a file of a run',
    oneOf: Object.keys($defs).map((type) => ({ $ref: `#/$defs/${type}` })),
    $defs,
  };
}

import { z } from 'zod';
import { runConfigSchema } from './schema.js';

/** The part of JSON Schema that ours uses. */
export interface JsonSchema {
  $schema?: string;
  title?: string;
  description?: string;
  type?: string;
  const?: unknown;
  enum?: unknown[];
  default?: unknown;
  minimum?: number;
  maximum?: number;
  exclusiveMinimum?: number;
  exclusiveMaximum?: number;
  multipleOf?: number;
  properties?: Record<string, JsonSchema>;
  /** Of a section whose keys are names of the user's. */
  additionalProperties?: JsonSchema | boolean;
  required?: string[];
  anyOf?: JsonSchema[];
  oneOf?: JsonSchema[];
  items?: JsonSchema;
  minItems?: number;
}

/** The schema of a YAML file: nothing is required, since a recipe or an override may give it. */
export function configJsonSchema(): JsonSchema {
  const schema = asJsonSchema(runConfigSchema);
  return { $schema: 'https://json-schema.org/draft/2020-12/schema', title: 'mbridge run configuration', ...schema };
}

/** What {@link configJsonSchema} has of one section, or of `mixed_precision`: a tenth of the work. */
export function sectionJsonSchema(name: string): JsonSchema | undefined {
  const { shape } = runConfigSchema;
  return Object.hasOwn(shape, name) ? asJsonSchema(shape[name as keyof typeof shape]) : undefined;
}

function asJsonSchema(schema: z.ZodType): JsonSchema {
  return z.toJSONSchema(schema, {
    io: 'input',
    override: ({ jsonSchema }) => {
      delete jsonSchema.required;
      if (jsonSchema.minimum === Number.MIN_SAFE_INTEGER) delete jsonSchema.minimum;
      if (jsonSchema.maximum === Number.MAX_SAFE_INTEGER) delete jsonSchema.maximum;
    },
  }) as JsonSchema;
}

/** The schemas of a section's keys; for a section of several types, of those of `type` (of all where it is unknown). */
export function sectionKeys(section: JsonSchema, type?: unknown): Record<string, JsonSchema> {
  if (section.oneOf === undefined) return section.properties ?? {};
  const variants = section.oneOf.filter((v) => v.properties?.['type']?.const === type);
  const chosen = variants.length > 0 ? variants : section.oneOf;
  return Object.assign({}, ...chosen.map((v) => v.properties ?? {})) as Record<string, JsonSchema>;
}

type Choice = string | number | boolean | null;

/** All values that a key takes, where these are few; undefined where they are not. */
export function choicesOf({ anyOf, enum: values, const: only, type }: JsonSchema): readonly Choice[] | undefined {
  if (values !== undefined) return values as Choice[];
  if (only !== undefined) return [only as Choice];
  if (type === 'boolean') return [true, false];
  if (type === 'null') return [null];
  const parts = anyOf?.map(choicesOf);
  return parts?.every((part) => part !== undefined) === true ? parts.flat() : undefined;
}

/** The words for what a key takes: `an integer of at least 1, or null`. */
export function expectation(schema: JsonSchema): string {
  if (schema.anyOf) return schema.anyOf.map(expectation).join(', or ');
  if (schema.oneOf) return 'a section of keys';
  if (schema.const !== undefined) return String(schema.const);
  if (schema.enum) return `one of ${schema.enum.join(', ')}`;
  const bounds = [
    schema.minimum === undefined ? [] : [`of at least ${schema.minimum}`],
    schema.exclusiveMinimum === undefined ? [] : [`above ${schema.exclusiveMinimum}`],
    schema.maximum === undefined ? [] : [`of at most ${schema.maximum}`],
    schema.exclusiveMaximum === undefined ? [] : [`below ${schema.exclusiveMaximum}`],
    schema.multipleOf === undefined ? [] : [`a multiple of ${schema.multipleOf}`],
  ].flat();
  if (schema.items?.properties) return `a list of {${Object.keys(schema.items.properties).join(', ')}}`;
  if (schema.items?.enum) {
    return `a list of ${schema.minItems === 1 ? 'at least one of ' : ''}${schema.items.enum.join(', ')}`;
  }
  return [typeName(schema.type), bounds.join(', ')].filter((part) => part !== '').join(' ');
}

function typeName(type: string | undefined): string {
  switch (type) {
    case 'integer':
      return 'an integer';
    case 'number':
      return 'a number';
    case 'string':
      return 'a text';
    case 'boolean':
      return 'true or false';
    case 'array':
      return 'a list';
    case 'object':
      return 'a section of keys';
    default:
      return type ?? 'a value';
  }
}

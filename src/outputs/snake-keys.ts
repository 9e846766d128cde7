type SnakeCase<S extends string> = S extends `${infer First}${infer Rest}`
  ? First extends Uppercase<First>
    ? First extends Lowercase<First>
      ? `${First}${SnakeCase<Rest>}`
      : `_${Lowercase<First>}${SnakeCase<Rest>}`
    : `${First}${SnakeCase<Rest>}`
  : S;

/** A type with the keys of all its objects in snake_case. */
export type SnakeKeys<T> = T extends readonly [unknown, ...unknown[]]
  ? T
  : T extends readonly (infer E)[]
    ? readonly SnakeKeys<E>[]
    : T extends object
      ? { readonly [K in keyof T as K extends string ? SnakeCase<K> : never]: SnakeKeys<T[K]> }
      : T;

/** What our own objects hold, with the keys as `--json` has them. Names of the user's may not be keys of it. */
export function snakeKeys<T>(value: T): SnakeKeys<T> {
  return convert(value) as SnakeKeys<T>;
}

function convert(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(convert);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, of]) => [
      key.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`),
      convert(of),
    ]),
  );
}

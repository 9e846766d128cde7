import type { Family } from './family.js';
import { QWEN3 } from './qwen3.js';

/** Every family that is built. */
export const FAMILIES: readonly Family[] = [QWEN3];

/** The family of that name; the schema lets no other name through. */
export function familyOf({ family: name }: { readonly family: string }): Family {
  const family = FAMILIES.find((each) => each.name === name);
  if (family === undefined) throw new RangeError(`no family ${name}; there are ${familyNames().join(', ')}`);
  return family;
}

export function familyNames(): string[] {
  return FAMILIES.map(({ name }) => name);
}

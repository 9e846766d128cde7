import type { Family } from './family.js';
import { LLAMA } from './llama.js';
import { QWEN2 } from './qwen2.js';
import { QWEN3 } from './qwen3.js';

/** Every family that is built. */
export const FAMILIES = [QWEN3, QWEN2, LLAMA] as const satisfies readonly Family[];

export type FamilyName = (typeof FAMILIES)[number]['name'];

/** The family of that name; the schema lets no other name through. */
export function familyOf({ family: name }: { readonly family: string }): Family {
  const family = FAMILIES.find((each) => each.name === name);
  if (family === undefined) throw new RangeError(`no family ${name}; there are ${familyNames().join(', ')}`);
  return family;
}

export function familyNames(): FamilyName[] {
  return FAMILIES.map(({ name }) => name);
}

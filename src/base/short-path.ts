import { isAbsolute, relative } from 'node:path';

/** From here, where that is not longer. */
export function shortPath(path: string): string {
  const short = relative(process.cwd(), path);
  return isAbsolute(path) && (short.startsWith('../../') || short === '') ? path : short;
}

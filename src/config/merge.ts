import { readHfConfig } from '../families/hf-config.js';
import { ADAPTER_CONFIG, readPeftConfig } from '../families/peft-config.js';
import { expandPath, PATH_KEYS } from './expand-path.js';
import type { Problem } from './problem.js';
import { isSection } from './schema.js';
import { isPlainObject } from '../base/plain-object.js';
import { ALIASES, type Setting } from './setting.js';

/** Settings laid over each other: values by section and key, and the setting that each came from. */
export interface Merged {
  readonly values: Record<string, unknown>;
  /** By `section` and `section.key`. */
  readonly sources: Map<string, Setting>;
}

/** Where a key or section was written: undefined for one that follows from others or has its default. */
export function placeIn({ sources }: Merged, path: string): string | undefined {
  const source = sources.get(path) ?? [...sources].find(([key]) => key.startsWith(`${path}.`))?.[1];
  return source?.origin === 'derived' ? undefined : source?.place;
}

/** Lays `layers` over each other, the last one winning. A section that a layer gives another `type` starts afresh. */
export function mergeLayers(
  layers: readonly (readonly Setting[])[],
  problems: Problem[],
  folders: readonly NamedFolder[] = FOLDERS,
): Merged {
  const merged: Merged = { values: keyless(), sources: new Map() };
  for (const layer of layers) {
    const named = layer.flatMap(leaves).map(canonical);
    const settings = folders.reduce(
      (all, folder) => withFolder(all, folder, problems),
      named.map((setting) => withFullPath(setting, problems)),
    );
    for (const setting of settings) if (setting.path[1] === 'type') restart(merged, setting);
    const written = new Map<string, Setting>();
    for (const setting of settings) {
      const key = setting.path.join('.');
      const before = written.get(key);
      if (before && setting.path.length === 2 && setting.origin === 'file' && before.origin === 'file') {
        const message = `set twice; also at ${before.place}`;
        problems.push({ code: 'MB_CONFIG_VALUE', place: setting.place, path: key, message });
      }
      written.set(key, setting);
      apply(merged, setting);
    }
  }
  return merged;
}

/** An object without a prototype: `__proto__` and `constructor` are keys like any other. */
function keyless(): Record<string, unknown> {
  return Object.create(null) as Record<string, unknown>;
}

/** A section written as an object, taken apart into its keys; one of ours without content is none. */
function leaves(setting: Setting): Setting[] {
  const [section = ''] = setting.path;
  if (setting.path.length === 2) return [setting];
  if (setting.value === null && isSection(section)) return [];
  if (!isPlainObject(setting.value)) return [setting];
  const keys = Object.entries(setting.value).filter(([, value]) => value !== undefined);
  return [{ ...setting, value: {} }, ...keys.map(([key, value]) => ({ ...setting, path: [section, key], value }))];
}

function canonical(setting: Setting): Setting {
  const written = setting.path.join('.');
  const name = Object.hasOwn(ALIASES, written) ? ALIASES[written] : undefined;
  return name === undefined ? setting : { ...setting, path: name.split('.') };
}

function withFullPath(setting: Setting, problems: Problem[]): Setting {
  const { value, place } = setting;
  const path = setting.path.join('.');
  if (path === 'validation.sets' && isPlainObject(value)) {
    const sets = Object.entries(value).map(([name, set]) => [name, withFullPaths(set, `${path}.${name}`)]);
    return { ...setting, value: Object.fromEntries(sets) as unknown };
  }
  if (path === 'dataset.blend') return { ...setting, value: fullBlend(value, path) };
  return PATH_KEYS.has(path) ? { ...setting, value: fullPath(value, path) } : setting;

  /** The paths in a set of `validation.sets`, or in a source of a blend. */
  function withFullPaths(set: unknown, at: string): unknown {
    if (!isPlainObject(set)) return set;
    const own = 'path' in set ? { path: fullPath(set['path'], `${at}.path`) } : {};
    return { ...set, ...own, ...('blend' in set ? { blend: fullBlend(set['blend'], `${at}.blend`) } : {}) };
  }

  function fullBlend(sources: unknown, at: string): unknown {
    if (!Array.isArray(sources)) return sources;
    return sources.map((source: unknown, i) => withFullPaths(source, `${at}.${i}`));
  }

  function fullPath(written: unknown, at: string): unknown {
    if (typeof written !== 'string') return written;
    const found = expandPath(written);
    if ('path' in found) return found.path;
    problems.push({ code: 'MB_CONFIG_VALUE', place, path: at, message: found.problem });
    return written;
  }
}

/** A key that names a folder, whose file gives other keys of the section. */
interface NamedFolder {
  readonly section: string;
  readonly key: string;
  readonly file: string;
  readonly read: (folder: string) => { readonly keys: object } | { readonly problem: string };
}

const FOLDERS: readonly NamedFolder[] = [
  {
    ...{ section: 'model', key: 'hf_path', file: 'config.json' },
    read: (folder) => {
      const found = readHfConfig(folder);
      return 'problem' in found ? found : { keys: found.sizes };
    },
  },
  {
    ...{ section: 'peft', key: 'adapter', file: ADAPTER_CONFIG },
    read: (folder) => {
      const found = readPeftConfig(folder);
      if ('problem' in found) return found;
      const { rank, alpha, modules } = found.adapters;
      return { keys: { type: 'lora', dim: rank, alpha, target_modules: modules } };
    },
  },
];

/** Where a layer names such a folder, what its file says comes just before the layer's own. */
function withFolder(layer: Setting[], { section, key, file, read }: NamedFolder, problems: Problem[]): Setting[] {
  const path = `${section}.${key}`;
  const named = layer.findLast((setting) => setting.path.join('.') === path);
  if (typeof named?.value !== 'string') return layer;
  const folder = named.value;
  const place = `${folder}/${file}`;
  let found: ReturnType<typeof read>;
  try {
    found = read(folder);
  } catch (error) {
    // Whatever a file makes its reader throw is what is wrong with it.
    found = { problem: `${place}: ${error instanceof Error ? error.message : String(error)}` };
  }
  if ('problem' in found) {
    problems.push({ code: 'MB_CONFIG_HF', place: named.place, path, message: found.problem });
    return layer;
  }
  const keys = Object.entries(found.keys).map(([name, value]: [string, unknown]): Setting => {
    return { path: [section, name], value, origin: 'hf', place };
  });
  return [...keys, ...layer];
}

function restart({ values, sources }: Merged, setting: Setting): void {
  const [section = ''] = setting.path;
  const current = values[section];
  if (!isPlainObject(current) || current['type'] === setting.value) return;
  for (const key of Object.keys(current)) sources.delete(`${section}.${key}`);
  values[section] = keyless();
}

function apply({ values, sources }: Merged, setting: Setting): void {
  const [section = '', key] = setting.path;
  sources.set(setting.path.join('.'), setting);
  if (key === undefined && !isPlainObject(setting.value)) values[section] = setting.value;
  else if (!isPlainObject(values[section])) values[section] = keyless();
  if (key !== undefined) (values[section] as Record<string, unknown>)[key] = setting.value;
}

/** Most names that a list is expanded to. */
const MOST = 100_000;

/**
 * Names of a Slurm node list, as `scontrol show hostnames` gives them: `a[1-3,5],b[01-02]x[1-2]` is a1, a2, a3, a5, b01x1,
 * b01x2, b02x1, b02x2. A list that is none gives no names.
 */
export function expandHosts(list: string): string[] {
  const hosts: string[] = [];
  for (const entry of splitOutside(list)) {
    let names = [''];
    for (const part of entry.split(/(\[[^\]]*\])/)) {
      const choices = part.startsWith('[') ? part.slice(1, -1).split(',').flatMap(expandRange) : [part];
      if (names.length * choices.length + hosts.length > MOST) return [];
      names = names.flatMap((name) => choices.map((choice) => name + choice));
    }
    hosts.push(...names.filter((name) => name !== ''));
  }
  return hosts.some((name) => /[[\]]/.test(name)) ? [] : hosts;
}

/** Where each rank runs, if tasks fill one node after the other (Slurm's block distribution, the default). */
export function hostsOfRanks(list: string, tasksPerNode: readonly number[]): string[] {
  const hosts = expandHosts(list);
  return tasksPerNode.flatMap((tasks, node) => Array.from({ length: tasks }, () => hosts[node] ?? `node ${node}`));
}

/** Slurm writes tasks per node as `4(x2),3`: 4, 4, 3. */
export function parseTasksPerNode(text: string): number[] {
  return text.split(',').flatMap((part) => {
    const match = /^(\d{1,6})(?:\(x(\d{1,6})\))?$/.exec(part.trim());
    return match === null ? [] : Array.from({ length: Number(match[2] ?? 1) }, () => Number(match[1]));
  });
}

/** Splits at the commas that stand outside of brackets. */
function splitOutside(list: string): string[] {
  return list.split(/,(?![^[]*\])/).map((entry) => entry.trim());
}

/** `07-09` is 07, 08, 09. */
function expandRange(text: string): string[] {
  const match = /^(\d+)-(\d+)$/.exec(text.trim());
  if (match === null) return [text.trim()];
  const [, first = '', last = ''] = match;
  const length = Math.min(MOST, Math.max(0, Number(last) - Number(first) + 1));
  return Array.from({ length }, (_, i) => String(Number(first) + i).padStart(first.length, '0'));
}

import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';

// Docker itself cannot be had where the tests run: what the Dockerfile names is looked at.
const ROOT = join(import.meta.dirname, '..', '..');
const read = (name: string): string => readFileSync(join(ROOT, name), 'utf8');
const instructions = read('Dockerfile')
  .replaceAll(/^#.*\n/gm, '')
  .replaceAll(/\\\n\s*/g, ' ')
  .split('\n')
  .filter((line) => line !== '')
  .map((line) => ({ line, name: line.split(' ')[0] as string }));

test('instructions are known, and stages are there before they are copied from', () => {
  const known = ['ARG', 'FROM', 'RUN', 'COPY', 'ENV', 'WORKDIR', 'ENTRYPOINT', 'CMD'];
  expect(instructions.filter(({ name }) => !known.includes(name))).toEqual([]);
  const stages: string[] = [];
  const variables: string[] = [];
  for (const { line, name } of instructions) {
    if (name === 'ARG') variables.push(/^ARG (\w+)=/.exec(line)?.[1] ?? '');
    if (name === 'FROM') {
      stages.push(/ AS (\w+)$/.exec(line)?.[1] ?? 'none');
      for (const [, variable] of line.matchAll(/\$\{(\w+)\}/g)) expect(variables).toContain(variable);
    }
    const [, from] = /^COPY --from=(\w+) /.exec(line) ?? [];
    if (from !== undefined) expect(stages.slice(0, -1)).toContain(from);
  }
  expect(stages).toEqual(['node', 'build', 'cpu', 'cuda']);
});

test('what it runs is there, and nothing that the build needs is left out of its context', () => {
  const { scripts, files } = JSON.parse(read('package.json')) as { scripts: object; files: string[] };
  const commands = instructions.filter(({ name }) => name === 'RUN').map(({ line }) => line);
  const run = commands.flatMap((line) => [...line.matchAll(/npm run (\S+)/g)].map((match) => match[1]));
  expect(Object.keys(scripts)).toEqual(expect.arrayContaining(run));
  const called = commands.flatMap((line) => [...line.matchAll(/node (scripts\/\S+)/g)].map((match) => match[1] ?? ''));
  expect(called).toEqual(['scripts/bundle.mjs']);
  expect(existsSync(join(ROOT, called[0]!))).toBe(true);

  const ignored = read('.dockerignore').trim().split('\n');
  const made = ['dist/src', 'dist/recipes', 'dist/examples', 'prebuilds'];
  const needed = [
    ...files.filter((file) => !file.startsWith('!') && !made.includes(file)),
    'src',
    'scripts',
    'package-lock.json',
  ];
  for (const file of [...needed, 'tsconfig.build.json', 'README.md']) {
    expect(existsSync(join(ROOT, file)), file).toBe(true);
    expect(ignored, file).not.toContain(file.split('/')[0]);
  }
});

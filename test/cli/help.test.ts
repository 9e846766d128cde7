import type { Command } from 'commander';
import { describe, expect, test } from 'vitest';
import { findRecipe } from '../../recipes/index.js';
import { argumentKind } from '../../src/cli/completion/arguments.js';
import { makeProgram } from '../../src/cli/program.js';
import { listKeys } from '../../src/cli/run/listed-keys.js';

/** What `mbridge <words> --help` prints. */
function helpOf(command: Command): string {
  let text = '';
  command.configureOutput({ writeOut: (part) => (text += part) });
  command.outputHelp();
  return text;
}

const COMMANDS = makeProgram()
  .commands.flatMap((outer) => [
    { words: outer.name(), command: outer },
    ...outer.commands.map((inner) => ({ words: `${outer.name()} ${inner.name()}`, command: inner })),
  ])
  .filter(({ words }) => !words.startsWith('__'));

/** The commands in the examples of a help, without what a shell adds or what is said of them. */
function examplesOf(help: string): string[] {
  const [, examples = ''] = help.split(/^Examples?:\n/m);
  return [...(examples.split('\n\n')[0] ?? '').matchAll(/\bmbridge (\S(?:(?! {2,}| [|&>]).)*)/g)].map(
    ([, line = '']) => line,
  );
}

/** Words as a shell makes them. */
function wordsOf(line: string): string[] {
  return [...line.matchAll(/(?:[^\s"]|"[^"]*")+/g)].map(([word]) => word.replaceAll('"', ''));
}

/** Parses a line as the program would, up to where the command would run: its words, and its arguments. */
function parse(words: readonly string[]): { name: string; args: readonly string[] } {
  const program = makeProgram();
  const ran: { name: string; args: readonly string[] }[] = [];
  for (const outer of program.commands) {
    for (const command of [outer, ...outer.commands]) {
      const name = command === outer ? outer.name() : `${outer.name()} ${command.name()}`;
      if (command.commands.length === 0) command.action(() => void ran.push({ name, args: command.args }));
    }
  }
  program.parse(words, { from: 'user' });
  expect(ran, words.join(' ')).toHaveLength(1);
  return ran[0]!;
}

describe('help', () => {
  test.each(COMMANDS)('of mbridge $words has examples that are understood', async ({ words, command }) => {
    const examples = examplesOf(helpOf(command));
    expect(examples.length).toBeGreaterThan(0);
    const keys = (await listKeys()).map(({ key }) => key);
    for (const example of examples) {
      const { name, args } = parse(wordsOf(example));
      const [first] = words.split(' ');
      if (example === examples[0]) expect(name.split(' ')[0]).toBe(first);
      // Of what a cluster is to run: the command behind --.
      const inner = argumentKind(name, 0) === 'command' ? parse(args) : { name, args };
      inner.args.forEach((arg, i) => {
        const kind = argumentKind(inner.name, i);
        if (kind === 'recipe' && !/=|\.ya?ml$/.test(arg)) expect(findRecipe(arg)).toBeDefined();
        const key = /^([a-z_]+\.[\w.]+)=/.exec(arg)?.[1];
        if (key !== undefined && !arg.startsWith('-')) expect(keys).toContain(key.split('.').slice(0, 2).join('.'));
      });
    }
  });

  test('lists every command of the first level with what it does', () => {
    const text = helpOf(makeProgram());
    for (const { words, command } of COMMANDS.filter(({ words: name }) => !name.includes(' '))) {
      expect(text).toMatch(new RegExp(`^ {2}${words}\\b`, 'm'));
      expect(command.description()).not.toBe('');
    }
  });
});

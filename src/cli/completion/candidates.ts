import type { Command, Option } from 'commander';
import { argumentKind, valueKind, type Kind } from './arguments.js';
import { SHELLS } from './scripts.js';

/** A word that may stand there, and what it means. */
export interface Candidate {
  readonly value: string;
  readonly about: string;
}

/** What may stand at the end of a command line; `paths` where it may be one. */
export interface Candidates {
  readonly words: readonly Candidate[];
  readonly paths: 'files' | 'folders' | null;
}

/** What only the program knows; asked for where it is needed. */
export interface Sources {
  readonly recipes: () => Promise<readonly Candidate[]>;
  readonly runs: () => Promise<readonly Candidate[]>;
  readonly keys: () => Promise<readonly ConfigKey[]>;
}

export interface ConfigKey extends Candidate {
  /** All that it takes, where these are few. */
  readonly choices: readonly (string | number | boolean | null)[];
  readonly isPath: boolean;
}

const NOTHING: Candidates = { words: [], paths: null };

/**
 * What the last of `words` (those after `mbridge`) may become.
 * @param program with all commands
 */
export async function candidates(program: Command, words: readonly string[], sources: Sources): Promise<Candidates> {
  const current = words.at(-1) ?? '';
  const { command, names, index, open, rest } = walk(program, words.slice(0, -1));
  if (rest !== undefined) return candidates(program, [...rest, current], sources);
  const found = open === undefined ? await atWord() : await atValue(open, '', current);
  return { ...found, words: found.words.filter(({ value }) => value.startsWith(current)) };

  async function atWord(): Promise<Candidates> {
    const assigned = /^(--[\w-]+)=/.exec(current);
    if (assigned !== null) {
      const option = command.options.find(({ long }) => long === assigned[1]);
      return option === undefined ? NOTHING : atValue(option, assigned[0], current);
    }
    if (current.startsWith('-')) return { words: optionsOf(command), paths: null };
    if (index === 0 && command.commands.length > 0) return { words: commandsOf(command), paths: null };
    if (command.registeredArguments.length === 0) return NOTHING;
    return ofKind(argumentKind(names.join(' '), index), current, sources);
  }

  async function atValue(option: Option, prefix: string, text: string): Promise<Candidates> {
    const choices = option.argChoices ?? (option.long === '--device' ? ['auto', 'cuda', 'cpu'] : []);
    if (choices.length > 0)
      return { words: choices.map((value) => ({ value: prefix + value, about: '' })), paths: null };
    return ofKind(valueKind(option.flags), text, sources);
  }
}

interface Place {
  readonly command: Command;
  /** Its words. */
  readonly names: readonly string[];
  /** Arguments before this one. */
  readonly index: number;
  /** The option whose value is to come. */
  readonly open: Option | undefined;
  /** What follows `--`, of a command that takes another command there. */
  readonly rest: readonly string[] | undefined;
}

function walk(program: Command, words: readonly string[]): Place {
  let command = program;
  const names: string[] = [];
  let index = 0;
  let open: Option | undefined;
  for (const [at, word] of words.entries()) {
    if (open !== undefined) {
      open = undefined;
      continue;
    }
    if (word === '--') {
      const nested = argumentKind(names.join(' '), 0) === 'command';
      return { command, names, index, open, rest: nested ? words.slice(at + 1) : undefined };
    }
    if (word.startsWith('-')) {
      const option = command.options.find(({ long, short }) => word === long || word === short);
      if (option?.required === true) open = option;
      continue;
    }
    const inner = index === 0 ? command.commands.find((each) => each.name() === word) : undefined;
    if (inner === undefined) index++;
    else {
      command = inner;
      names.push(word);
    }
  }
  return { command, names, index, open, rest: undefined };
}

function commandsOf(command: Command): Candidate[] {
  const help = command.createHelp();
  return help.visibleCommands(command).map((each) => ({ value: each.name(), about: help.subcommandDescription(each) }));
}

function optionsOf(command: Command): Candidate[] {
  const help = command.createHelp();
  return help.visibleOptions(command).flatMap((option) => {
    const value = option.long ?? option.short;
    return value === undefined ? [] : [{ value, about: help.optionDescription(option) }];
  });
}

async function ofKind(kind: Kind, text: string, sources: Sources): Promise<Candidates> {
  switch (kind) {
    case 'recipe':
      return { words: await sources.recipes(), paths: 'files' };
    case 'run':
      return { words: await sources.runs(), paths: 'folders' };
    case 'override':
      return overrides(text, await sources.keys());
    case 'key':
      return { words: withSections(await sources.keys()), paths: null };
    case 'shell':
      return { words: SHELLS.map((value) => ({ value, about: '' })), paths: null };
    case 'file':
      return { words: [], paths: 'files' };
    case 'folder':
      return { words: [], paths: 'folders' };
    case 'command':
      return { words: [{ value: '--', about: 'the command follows' }], paths: null };
    case 'text':
      return NOTHING;
  }
}

/** `section.key=`, and behind that the values that the key takes. */
function overrides(text: string, keys: readonly ConfigKey[]): Candidates {
  const name = /^([\w.]+)=/.exec(text)?.[1];
  const key = name === undefined ? undefined : keys.find(({ value }) => value === name);
  if (name !== undefined) {
    const words = (key?.choices ?? []).map((choice) => ({ value: `${name}=${choice}`, about: '' }));
    return { words, paths: key?.isPath === true ? 'files' : null };
  }
  return { words: keys.map(({ value, about }) => ({ value: `${value}=`, about })), paths: null };
}

function withSections(keys: readonly ConfigKey[]): Candidate[] {
  const sections = [...new Set(keys.map(({ value }) => value.split('.')[0] ?? ''))];
  return [...sections.map((value) => ({ value, about: 'a section' })), ...keys];
}

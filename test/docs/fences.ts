import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

export const ROOT = join(import.meta.dirname, '../..');

/** README, the other pages of the first folder, and everything in docs/. */
export const PAGES = [
  'README.md',
  ...readdirSync(ROOT).filter((name) => name !== 'README.md'),
  ...readdirSync(join(ROOT, 'docs'), { recursive: true, encoding: 'utf8' }).map((name) => `docs/${name}`),
].filter((name) => name.endsWith('.md'));

/** A fenced block of a page. */
export interface Fence {
  readonly page: string;
  readonly line: number;
  readonly language: string;
  /** What follows the language: `gpu`, a file's name, or nothing. */
  readonly info: string;
  readonly text: string;
}

export function fencesOf(page: string): Fence[] {
  const text = readFileSync(join(ROOT, page), 'utf8');
  return [...text.matchAll(/^```(\S*)[ \t]*(.*)\n([\s\S]*?)^```$/gm)].map((match) => {
    const [, language = '', info = '', body = ''] = match;
    return { page, line: text.slice(0, match.index).split('\n').length, language, info, text: body };
  });
}

export const FENCES = PAGES.flatMap(fencesOf);

export interface DocumentedCommand {
  readonly at: string;
  /** '' for one that runs anywhere; else why it cannot run here. */
  readonly info: string;
  readonly command: string;
}

/** The commands of all ```bash blocks: a line each, `\` joins lines, `#` begins a comment. */
export const COMMANDS: readonly DocumentedCommand[] = FENCES.filter(({ language }) => language === 'bash').flatMap(
  ({ page, line, info, text }) =>
    text
      .replaceAll(/\\\n\s*/g, ' ')
      .split('\n')
      .map((command) => command.replace(/(^|\s)#.*$/, '').trim())
      .filter((command) => command !== '')
      .map((command) => ({ at: `${page}:${line}`, info, command })),
);

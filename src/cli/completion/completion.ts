import { Argument, type Command } from 'commander';
import type { Sources } from './candidates.js';
import { ASKED, SCRIPTS, SHELLS, type Shell } from './scripts.js';

const HELP = `
Examples:
  mbridge completion bash >> ~/.bashrc                            in each new bash
  mbridge completion zsh >> ~/.zshrc                              in each new zsh, after compinit
  mbridge completion fish > ~/.config/fish/completions/mbridge.fish

Commands, flags, recipes, runs, keys of the configuration and their values, and paths are completed. The shell calls
mbridge by its name: where it is not on the PATH, as after npm install in a project, add node_modules/.bin to it.`;

/** `mbridge completion`, and what its scripts ask at each TAB. */
export function addCompletion(program: Command): void {
  program
    .command('completion')
    .description('print what makes a shell complete mbridge')
    .addArgument(new Argument('<shell>', 'bash, zsh or fish').choices(SHELLS))
    .addHelpText('after', HELP)
    .action((shell: Shell) => {
      process.stdout.write(SCRIPTS[shell]);
    });
  program
    .command(ASKED, { hidden: true })
    .argument('[words...]')
    .action(async (words: string[]) => {
      const { candidates } = await import('./candidates.js');
      const { words: found, paths } = await candidates(program, words, sources);
      const lines = found.map(({ value, about }) => `${value}\t${about.replaceAll(/\s+/g, ' ')}`);
      process.stdout.write([...(paths === null ? [] : [`:${paths}`]), ...lines].map((line) => `${line}\n`).join(''));
    });
}

const sources: Sources = {
  recipes: async () => {
    const { RECIPES } = await import('../../../recipes/index.js');
    return RECIPES.map(({ name, description }) => ({ value: name, about: description }));
  },
  runs: async () => {
    const { basename } = await import('node:path');
    const { listRuns } = await import('../../job/shared/run-list.js');
    const { RUNS_FOLDER } = await import('../../job/shared/run-folder.js');
    return listRuns(RUNS_FOLDER).map(({ folder, state }) => ({ value: basename(folder), about: state }));
  },
  keys: async () => {
    const { listKeys } = await import('../run/listed-keys.js');
    const { PATH_KEYS } = await import('../../config/expand-path.js');
    return (await listKeys()).map(({ key, description, values = [] }) => ({
      ...{ value: key, about: description, choices: values, isPath: PATH_KEYS.has(key) },
    }));
  },
};

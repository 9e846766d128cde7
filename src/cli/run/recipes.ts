import type { Command } from 'commander';
import { outputLine } from '../../outputs/line.js';

/** `mbridge recipes`: what can be run by name. */
export function addRecipes(program: Command): void {
  program
    .command('recipes')
    .description('list the recipes')
    .option('--json', 'as JSON')
    .action(async ({ json = false }: { json?: boolean }) => {
      const { RECIPES } = await import('../../../recipes/index.js');
      const { formatTable } = await import('../shared/table.js');
      const list = RECIPES.map(({ name, description }) => ({ name, description }));
      const text = formatTable(list.map(({ name, description }) => [name, description]));
      process.stdout.write(json ? outputLine('recipes', { recipes: list }) : text);
    });
}

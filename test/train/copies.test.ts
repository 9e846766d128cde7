import { expect, test } from 'vitest';
import { findRecipe } from '../../recipes/index.js';
import { resolve } from '../../src/config/resolve.js';
import { reasonNotToCopy } from '../../src/train/copies.js';

const HERE = { external: false, nodes: undefined, maxRestarts: 3, own: false };

test.each([
  ['with restarts', '1', {}, undefined],
  ['where none are asked for', 'null', { maxRestarts: 0 }, undefined],
  ['without restarts', '1', { maxRestarts: 0 }, 'only --max-restarts goes on from copies'],
  ['on several nodes', '1', { nodes: {} }, 'on several nodes no launcher keeps the memory of all ranks'],
  ['under torchrun', '1', { external: true, maxRestarts: 0 }, 'what starts the ranks does not keep their memory'],
  ['of a module of a program', '1', { own: true }, 'only the training loop of this package goes on from copies'],
])('copies in memory %s', (_, interval, facts, reason) => {
  const overrides = [{ text: `checkpoint.non_persistent_save_interval=${interval}`, place: 'here' }];
  const { config } = resolve({ recipe: findRecipe('qwen3-tiny'), flags: [], overrides });
  const said = reasonNotToCopy(config, { ...HERE, ...facts });
  if (reason === undefined) expect(said).toBeUndefined();
  else expect(said).toContain(`checkpoint.non_persistent_save_interval is ignored: ${reason}`);
});

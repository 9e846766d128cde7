import { describe, expect, test } from 'vitest';
import type { OutputFacts } from '../../src/outputs/line.js';
import { readOutput } from '../helpers/outputs.js';
import { mbridge } from './mbridge.js';

describe('config keys', () => {
  test('says of each key what it takes, its default and what it does', async () => {
    const { stdout } = await mbridge(['config', 'keys', 'optimizer.lr']);
    expect(stdout).toBe('optimizer.lr\n  peak learning rate\n  a number above 0; default 0.0003');
    const { keys: all } = readOutput<OutputFacts<'config_keys'>>((await mbridge(['config', 'keys', '--json'])).stdout);
    expect(all.find(({ key }) => key === 'dataset.too_long')).toMatchObject({ types: ['chat'], default: 'truncate' });
    const text = (await mbridge(['config', 'keys'])).stdout;
    for (const { key } of all) expect(text).toContain(key.split('.').at(-1));
    expect(text.split('\n').filter((line) => line.length > 80)).toEqual([]);
  });
});

import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { Checkpoint } from '../../src/checkpoint/format/checkpoint.js';
import { requireCheckpoint } from '../../src/checkpoint/format/checkpoint-root.js';
import { exportHf, type ExportOptions, type Exported } from '../../src/checkpoint/hf/hf-export.js';
import { HfFolder } from '../../src/checkpoint/hf/hf-folder.js';
import { importHf } from '../../src/checkpoint/run/hf-import.js';
import { float32ToBfloat16 } from '../../src/checkpoint/files/safetensors-convert.js';
import { readHfConfig } from '../../src/families/hf-config.js';
import { mbridge } from '../cli/mbridge.js';
import { mbridgeError } from '../data/helpers.js';
import { FAMILY_FIXTURES, FIXTURES, loadFixture } from '../helpers/fixture.js';
import { expectSameTensors, fixture, LAYOUT_FLAGS, pretrainSteps, temporaryFolder } from './runs.js';
import { writeSafetensors } from './write-safetensors.js';

/** Bytes of every tensor, as hexadecimal text, with dtype and shape. */
async function tensorsOf(folder: string): Promise<Record<string, string>> {
  const hf = await HfFolder.open(folder);
  const found: Record<string, string> = {};
  for (const name of hf.names().sort()) {
    const { dtype, shape } = hf.tensor(name);
    found[name] = `${dtype} [${shape.join()}] ${Buffer.from(await hf.file(name).readRows(name)).toString('base64')}`;
  }
  await hf.close();
  return found;
}

async function exported(source: string, target: string, options: ExportOptions = {}): Promise<Exported> {
  const checkpoint = await Checkpoint.open(await requireCheckpoint(source, () => undefined));
  try {
    return await exportHf(checkpoint, target, options);
  } finally {
    await checkpoint.close();
  }
}

/** The tied fixture in bf16, with the head stored as well (as Qwen3-0.6B is), a tokenizer, and a file that is not ours. */
async function bf16Folder(root: string): Promise<string> {
  const folder = join(root, 'bf16');
  mkdirSync(folder);
  const config = JSON.parse(readFileSync(join(fixture.folder, 'config.json'), 'utf8')) as Record<string, unknown>;
  writeFileSync(join(folder, 'config.json'), JSON.stringify({ ...config, dtype: 'bfloat16', torch_dtype: 'bfloat16' }));
  writeFileSync(join(folder, 'tokenizer.json'), '{"model": {"type": "BPE"}}');
  writeFileSync(join(folder, 'merges.txt'), 'a b\n');
  writeFileSync(join(folder, 'notes.txt'), 'mine');
  const hf = await HfFolder.open(fixture.folder);
  const tensors = new Map<string, Uint16Array>();
  for (const name of hf.names()) {
    const floats = await hf.readSlice(name);
    const halves = new Uint16Array(floats.length);
    float32ToBfloat16(floats, halves);
    tensors.set(name, halves);
  }
  tensors.set('lm_head.weight', tensors.get('model.embed_tokens.weight') as Uint16Array);
  const entries = [...tensors].map(([name, halves]) => {
    const { shape } = hf.tensor(name === 'lm_head.weight' ? 'model.embed_tokens.weight' : name);
    return [{ name, dtype: 'BF16', shape }, new Uint8Array(halves.buffer)] as const;
  });
  writeSafetensors(join(folder, 'model.safetensors'), entries, { format: 'pt' });
  await hf.close();
  return folder;
}

describe('import and export', () => {
  test.each([...FIXTURES, ...FAMILY_FIXTURES])('of %s keep every byte of every tensor', async (name) => {
    const folder = temporaryFolder();
    const source = loadFixture(name).folder;
    await importHf(source, join(folder, 'imported'));
    const result = await exported(join(folder, 'imported'), join(folder, 'hf'));
    expect(await tensorsOf(join(folder, 'hf'))).toEqual(await tensorsOf(source));
    expect(readFileSync(join(folder, 'hf/config.json'))).toEqual(readFileSync(join(source, 'config.json')));
    expect(result.companions).toBe(join(folder, 'imported/step-00000000/hf'));
  });

  test('keep bf16, a tied head that is stored, and the tokenizer; in shards as Hugging Face cuts them', async () => {
    const folder = temporaryFolder();
    const source = await bf16Folder(folder);
    await importHf(source, join(folder, 'imported'));
    await exported(join(folder, 'imported'), join(folder, 'hf'), { shardBytes: 200_000 });
    expect(await tensorsOf(join(folder, 'hf'))).toEqual(await tensorsOf(source));
    const names = readdirSync(join(folder, 'hf')).sort();
    const shards = names.filter((name) => name.endsWith('.safetensors'));
    const count = String(shards.length).padStart(5, '0');
    expect(shards.length).toBeGreaterThan(2);
    expect(shards).toEqual(shards.map((_, i) => `model-${String(i + 1).padStart(5, '0')}-of-${count}.safetensors`));
    const rest = ['config.json', 'merges.txt', 'model.safetensors.index.json', 'tokenizer.json'];
    expect(names).toEqual([...shards, ...rest].sort());
    await importHf(join(folder, 'hf'), join(folder, 'again'));
    expectSameTensors(join(folder, 'imported/step-00000000'), join(folder, 'again/step-00000000'));
  });

  test('of another dtype round to it, and config.json says so', async () => {
    const folder = temporaryFolder();
    await importHf(fixture.folder, join(folder, 'imported'));
    await exported(join(folder, 'imported'), join(folder, 'hf'), { dtype: 'bf16' });
    const expected = await tensorsOf(await bf16Folder(folder));
    delete expected['lm_head.weight'];
    expect(await tensorsOf(join(folder, 'hf'))).toEqual(expected);
    expect(JSON.parse(readFileSync(join(folder, 'hf/config.json'), 'utf8'))).toMatchObject({ dtype: 'bfloat16' });
  });

  test.each([
    ['fp32', 'float32'],
    ['bf16_mixed', 'bfloat16'],
    ['fp8_mixed', 'bfloat16'],
  ] as const)('trained in %s are %s, unless another dtype is asked for', async (precision, dtype) => {
    const folder = temporaryFolder();
    await importHf(fixture.folder, join(folder, 'imported'));
    const checkpoint = await Checkpoint.open(await requireCheckpoint(join(folder, 'imported'), () => undefined));
    Object.defineProperty(checkpoint, 'state', { value: { ...checkpoint.state, precision } });
    await exportHf(checkpoint, join(folder, 'hf'));
    await checkpoint.close();
    expect(JSON.parse(readFileSync(join(folder, 'hf/config.json'), 'utf8'))).toMatchObject({ dtype });
  });

  test('refuse a target that is not empty, and leave nothing of one that failed', async () => {
    const folder = temporaryFolder();
    await importHf(fixture.folder, join(folder, 'imported'));
    mkdirSync(join(folder, 'hf'));
    writeFileSync(join(folder, 'hf/mine'), '');
    const error = await mbridgeError(() => exported(join(folder, 'imported'), join(folder, 'hf')));
    expect(error).toMatchObject({ code: 'MB_CHECKPOINT_EXISTS', exitCode: 7 });
    await mbridgeError(() => exported(join(folder, 'imported'), join(folder, 'new'), { hfPath: join(folder, 'hf') }));
    expect(readdirSync(folder).sort()).toEqual(['hf', 'imported']);
  });
});

test('a trained model goes out to Hugging Face and comes back with the same bits, from any layout', async () => {
  const folder = temporaryFolder();
  const saved = join(folder, 'saved');
  const args = [...LAYOUT_FLAGS['tp2 pp2'], `checkpoint.save=${saved}`, 'train.exit_interval=2'];
  await pretrainSteps({ folder, args });
  const out = await mbridge(['checkpoint', 'export', saved, join(folder, 'hf'), '--json']);
  expect(out.exitCode, out.stderr).toBe(0);
  expect(readHfConfig(join(folder, 'hf'))).toEqual(readHfConfig(fixture.folder));
  expect(Object.keys(await tensorsOf(join(folder, 'hf')))).toEqual(Object.keys(await tensorsOf(fixture.folder)));
  expect(await tensorsOf(join(folder, 'hf'))).not.toEqual(await tensorsOf(fixture.folder));

  const back = await mbridge(['checkpoint', 'import', join(folder, 'hf'), join(folder, 'imported')]);
  expect(back.exitCode, back.stderr).toBe(0);
  await exported(join(folder, 'imported'), join(folder, 'hf2'));
  expect(await tensorsOf(join(folder, 'hf2'))).toEqual(await tensorsOf(join(folder, 'hf')));

  // Training starts from either alike: from the folder, the import, or the weights of the run's checkpoint.
  const first = async (path: string): Promise<unknown> => {
    const run = [...LAYOUT_FLAGS.dp1, `checkpoint.pretrained_checkpoint=${path}`, 'train.train_iters=1'];
    return (await pretrainSteps({ folder, args: run })).steps;
  };
  const expected = await first(join(folder, 'hf'));
  expect(await first(join(folder, 'imported'))).toEqual(expected);
  expect(await first(saved)).toEqual(expected);

  // Resharding there and back gives the same files, and what is between is sound.
  const there = await mbridge(['checkpoint', 'reshard', saved, join(folder, 'tp4'), '--tp-size', '4']);
  expect(there.exitCode, there.stderr).toBe(0);
  expect((await mbridge(['checkpoint', 'verify', join(folder, 'tp4')])).exitCode).toBe(0);
  await mbridge([
    'checkpoint',
    'reshard',
    join(folder, 'tp4'),
    join(folder, 'back'),
    '--tp-size',
    '2',
    '--pp-size',
    '2',
  ]);
  expectSameTensors(join(saved, 'step-00000002'), join(folder, 'back/step-00000002'));
  const impossible = await mbridge(['checkpoint', 'reshard', saved, join(folder, 'no'), '--tp-size', '3']);
  expect(impossible.exitCode).toBe(3);
  expect(impossible.stderr).toMatch(/3 does not divide model\.num_attention_heads .*; this model takes 1, /);
});

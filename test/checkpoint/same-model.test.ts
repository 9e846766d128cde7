import { cpSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { SafetensorsFile } from '../../src/checkpoint/files/safetensors.js';
import type { SafetensorsDtype } from '../../src/checkpoint/files/safetensors-header.js';
import { readHfModel } from '../../src/checkpoint/hf/hf-files.js';
import { HfFolder } from '../../src/checkpoint/hf/hf-folder.js';
import { importHf } from '../../src/checkpoint/run/hf-import.js';
import { openWeights } from '../../src/checkpoint/run/open-weights.js';
import type { Device } from '../../src/engine/device.js';
import { openDevice } from '../../src/engine/open-device.js';
import { modelShape, type ModelShape } from '../../src/families/model-shape.js';
import { mbridgeError } from '../data/helpers.js';
import { fixture, LAYOUT_FLAGS, pretrain, pretrainSteps, temporaryFolder } from './runs.js';
import { writeSafetensors } from './write-safetensors.js';

const shape = modelShape({ model: readHfModel(fixture.folder) });
const EMBEDDING = 'model.embed_tokens.weight';

function cpu(): Device {
  const device = openDevice('cpu', 0, 1);
  onTestFinished(() => device.close());
  return device;
}

/** The fixture's folder with changes of its config.json. */
function folderWith(changes: Record<string, unknown>): string {
  const folder = join(temporaryFolder(), 'hf');
  cpSync(fixture.folder, folder, { recursive: true });
  const config = JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8')) as object;
  writeFileSync(join(folder, 'config.json'), JSON.stringify({ ...config, ...changes }));
  return folder;
}

/** Writes the fixture's tensors again as `change` makes them of name, dtype and bytes. */
async function rewrite(
  folder: string,
  change: (name: string, bytes: Uint8Array) => { name?: string; dtype?: SafetensorsDtype; bytes?: Uint8Array }[],
  file = 'model.safetensors',
): Promise<void> {
  const source = await SafetensorsFile.open(join(fixture.folder, 'model.safetensors'));
  const entries = [];
  for (const { name, dtype, shape: size } of source.tensors.values()) {
    const bytes = await source.readRows(name);
    for (const made of change(name, bytes)) {
      const spec = { name: made.name ?? name, dtype: made.dtype ?? dtype, shape: size };
      entries.push([spec, made.bytes ?? bytes] as const);
    }
  }
  await source.close();
  writeSafetensors(join(folder, file), entries, { format: 'pt' });
}

const YARN = { rope_type: 'yarn', factor: 4, rope_theta: 1e6, original_max_position_embeddings: 128 };
const LLAMA3 = {
  ...{ rope_type: 'llama3', factor: 8, rope_theta: 1e6, low_freq_factor: 1, high_freq_factor: 4 },
  original_max_position_embeddings: 64,
};

describe('a folder whose config.json describes another model is refused, whatever the shapes', () => {
  test.each<[string, Record<string, unknown>, RegExp]>([
    ['theta', { rope_parameters: null, rope_theta: 1e4 }, /rope_theta is 10000 there and 1000000 in the configuration/],
    ['no theta', { rope_parameters: null, rope_theta: null }, /rope_theta is 10000 there/],
    ['epsilon', { rms_norm_eps: 1e-5 }, /rms_norm_eps is 0.00001 there and 0.000001 in the configuration/],
    ['llama3 scaling', { rope_parameters: LLAMA3 }, /rope_scaling is \{"factor":8.*\} there and null in the config/],
    [
      'yarn beside',
      { rope_scaling: YARN },
      /rope_scaling is \{"factor":4,.*"yarn"\} there and null in the configuration/,
    ],
    ['a head of its own', { tie_word_embeddings: false }, /tie_word_embeddings is false there and true in the config/],
    ['a sliding window', { layer_types: Array(4).fill('sliding_attention') }, /uses sliding-window attention/],
    ['an activation', { hidden_act: 'gelu' }, /hidden_act is gelu; only silu/],
    ['biases', { attention_bias: true }, /attention_bias is true/],
    ['layers', { num_hidden_layers: 5, layer_types: null }, /num_hidden_layers is 5 there and 4 in the configuration/],
    ['another family', { architectures: ['Qwen2ForCausalLM'], model_type: 'qwen2' }, /family is qwen2 there and qwen3/],
    ['an unknown family', { architectures: ['PhiForCausalLM'], model_type: 'phi' }, /holds PhiForCausalLM/],
    ['quantised', { quantization_config: { quant_method: 'fp8' } }, /has a quantization_config \(fp8\)/],
  ])('%s', async (_, changes, message) => {
    const error = await mbridgeError(() => openWeights(folderWith(changes), shape, cpu()));
    expect(error).toMatchObject({ exitCode: 7 });
    expect(error.message).toMatch(message);
  });

  test('config.json is missing', async () => {
    const folder = folderWith({});
    rmSync(join(folder, 'config.json'));
    const error = await mbridgeError(() => openWeights(folder, shape, cpu()));
    expect(error).toMatchObject({ exitCode: 7, message: expect.stringContaining('config.json') as string });
  });

  test('what changes no output, or is allowed to differ, is not', async () => {
    const folder = folderWith({ initializer_range: 1, max_position_embeddings: 9, rms_norm_eps: 1e-5 });
    await (await openWeights(folder, shape, cpu(), ['rms_norm_eps'])).close();
    const both = await mbridgeError(() => openWeights(folder, shape, cpu(), ['rope_theta']));
    expect(both.hint).toContain('checkpoint.allow_model_changes=[rms_norm_eps]');
  });
});

describe('a checkpoint of another model is refused', () => {
  test.each<[string, Partial<ModelShape>, RegExp]>([
    ['theta', { ropeTheta: 7 }, /state\.json: describes another model: rope_theta is 1000000 there and 7 in/],
    ['epsilon', { rmsNormEps: 1e-5 }, /rms_norm_eps is 0.000001 there and 0.00001 in/],
    ['family', { family: 'qwen2' }, /family is qwen3 there and qwen2 in/],
  ])('as weights: %s', async (_, changes, message) => {
    const root = join(temporaryFolder(), 'imported');
    await importHf(fixture.folder, root);
    const error = await mbridgeError(() => openWeights(root, { ...shape, ...changes }, cpu()));
    expect(error).toMatchObject({ code: 'MB_CHECKPOINT_MODEL', exitCode: 7 });
    expect(error.message).toMatch(message);
  });

  test('to resume from, but where it may differ', async () => {
    const folder = temporaryFolder();
    const saved = join(folder, 'saved');
    await pretrainSteps({ folder, args: [...LAYOUT_FLAGS.dp1, `checkpoint.save=${saved}`, 'train.exit_interval=1'] });
    const resume = [...LAYOUT_FLAGS.dp1, `checkpoint.load=${saved}`, 'model.rope_theta=1e4', 'train.exit_interval=2'];
    const refused = await pretrain({ folder, args: resume });
    expect(refused.exitCode).toBe(7);
    expect(refused.stdout).toContain('rope_theta is 1000000 there and 10000 in the configuration');
    const allowed = [...resume, 'checkpoint.allow_model_changes=[rope_theta]'];
    expect((await pretrainSteps({ folder, args: allowed })).steps.map(({ step }) => step)).toEqual([2]);
  });
});

describe('a folder is read as transformers reads it', () => {
  test('model.safetensors is taken, and an index of an older save beside it is not', async () => {
    const folder = folderWith({});
    await rewrite(folder, (_, bytes) => [{ bytes: new Uint8Array(bytes.length) }], 'model-00001-of-00001.safetensors');
    const map = { [EMBEDDING]: 'model-00001-of-00001.safetensors' };
    writeFileSync(join(folder, 'model.safetensors.index.json'), JSON.stringify({ weight_map: map }));
    const hf = await HfFolder.open(folder);
    onTestFinished(() => hf.close());
    expect((await hf.readSlice(EMBEDDING)).some((value) => value !== 0)).toBe(true);
  });

  test('names of the base model, without `model.`, are those of the whole one', async () => {
    const folder = folderWith({});
    await rewrite(folder, (name) => [{ name: name.replace('model.', '') }]);
    const [with_, without] = [await HfFolder.open(fixture.folder), await HfFolder.open(folder)];
    onTestFinished(async () => Promise.all([with_.close(), without.close()]).then(() => undefined));
    expect(without.names().sort()).toEqual(with_.names().sort());
    for (const name of with_.names()) expect(await without.readSlice(name)).toEqual(await with_.readSlice(name));
    const imported = await importHf(folder, join(folder, 'imported'));
    const plain = await importHf(fixture.folder, join(folder, 'plain'));
    expect(readFileSync(join(imported, 'index.json'))).toEqual(readFileSync(join(plain, 'index.json')));
  });

  test.each([
    ['the same', 0, undefined],
    ['another', 1, 'MB_HF_TIED'],
  ])('a tied head that is stored and is %s matrix as the embedding', async (_, change, code) => {
    const folder = folderWith({});
    await rewrite(folder, (name, bytes) => {
      if (name !== EMBEDDING) return [{}];
      const head = Uint8Array.from(bytes);
      head[head.length - 4]! ^= change;
      return [{}, { name: 'lm_head.weight', bytes: head }];
    });
    const trained = await pretrain({
      folder: temporaryFolder(),
      args: [
        ...LAYOUT_FLAGS.dp1,
        `checkpoint.pretrained_checkpoint=${folder}`,
        'train.train_iters=1',
        'scheduler.lr_warmup_iters=0',
        'scheduler.lr_decay_iters=1',
      ],
    });
    if (code === undefined) {
      await importHf(folder, join(folder, 'imported'));
      expect(trained.exitCode).toBe(0);
    } else {
      expect(await mbridgeError(() => importHf(folder, join(folder, 'imported')))).toMatchObject({ code, exitCode: 7 });
      expect(trained).toMatchObject({ exitCode: 7, stdout: expect.stringContaining(code) as string });
    }
  });

  test('tensors that are no floats are not imported', async () => {
    const folder = folderWith({});
    await rewrite(folder, (name, bytes) => [
      name.endsWith('q_proj.weight') ? { dtype: 'F8_E4M3', bytes: bytes.subarray(0, bytes.length / 4) } : {},
    ]);
    const error = await mbridgeError(() => importHf(folder, join(folder, 'imported')));
    expect(error).toMatchObject({ code: 'MB_SAFETENSORS_DTYPE', exitCode: 7 });
    expect(error.message).toContain('q_proj.weight is F8_E4M3, expected floats (and 3 more');
    renameSync(join(folder, 'model.safetensors'), join(folder, 'm')); // nothing holds it open
  });
});

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { findRecipe } from '../../recipes/index.js';
import { resolve, resolveConfig, type ConfigSources } from '../../src/config/resolve.js';
import { MbridgeError } from '../../src/base/errors.js';

const folder = mkdtempSync(join(tmpdir(), 'mbridge-config-'));
afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});
const tiny = findRecipe('qwen3-tiny');

function yaml(text: string): string {
  const file = join(folder, 'run.yaml');
  writeFileSync(file, text);
  return file;
}

/** The message of the error that `sources` give, the folder's name left out. */
function failure(sources: ConfigSources): string {
  try {
    resolve(sources);
  } catch (error) {
    expect(error).toBeInstanceOf(MbridgeError);
    expect((error as MbridgeError).exitCode).toBe(3);
    const { code, message } = error as MbridgeError;
    return `${code} ${message}`.replaceAll(`${folder}/`, '');
  }
  throw new Error('no error');
}

const override = (text: string): ConfigSources => ({ recipe: tiny, overrides: [{ text, place: 'argv[4]' }] });

describe('precedence', () => {
  test('defaults < recipe < file < flags < overrides', () => {
    const file = yaml('train: { global_batch_size: 16, micro_batch_size: 2 }\noptimizer: { lr: 0.5 }\n');
    const flags = [{ path: 'train.micro_batch_size', value: 4, place: '--mbs' }];
    const overrides = [{ text: 'optimizer.lr=0.25', place: 'argv[5]' }];
    const { config, origins } = resolve({ recipe: tiny, file, flags, overrides });
    expect(config.optimizer.adam_beta2).toBe(0.95);
    expect(origins.has('optimizer.adam_beta2')).toBe(false);
    expect(config.train).toMatchObject({ train_iters: 50, global_batch_size: 16, micro_batch_size: 4 });
    const place = (path: string): string | undefined => origins.get(path)?.place;
    expect(place('train.train_iters')).toBe('recipe qwen3-tiny');
    expect(place('train.global_batch_size')).toBe(`${file}:1:10`);
    expect(place('train.micro_batch_size')).toBe('--mbs');
    expect([config.optimizer.lr, place('optimizer.lr')]).toEqual([0.25, 'argv[5]']);
  });

  test('of two overrides of one key the last wins', () => {
    const overrides = ['rng.seed=1', 'rng.seed=2'].map((text, i) => ({ text, place: `argv[${i}]` }));
    expect(resolveConfig({ recipe: tiny, overrides }).rng.seed).toBe(2);
  });

  test('another type starts the section afresh, its keys in any order', () => {
    const overrides = ['dataset.path=a.jsonl', 'dataset.type=jsonl', 'dataset.shuffle=false'];
    const config = resolveConfig({ recipe: tiny, overrides: overrides.map((text) => ({ text, place: '' })) });
    const rest = { document_attention: false, mask_document_starts: false };
    expect(config.dataset).toEqual({ type: 'jsonl', path: 'a.jsonl', shuffle: false, seed: 1234, ...rest });
    expect(resolveConfig(override('dataset.type=mock')).dataset).toEqual({ type: 'mock', seed: 1234 });
  });

  test("Megatron's names are accepted and shown as ours", () => {
    const overrides = ['model.num_layers=2', 'model.share_embeddings_and_output_weights=false'];
    const { model } = resolveConfig({ recipe: tiny, overrides: overrides.map((text) => ({ text, place: '' })) });
    expect(model).toMatchObject({ num_hidden_layers: 2, tie_word_embeddings: false });
  });
});

describe('values that follow from others', () => {
  test.each([
    [[], 'model.sequence_parallel', false],
    [['model.tensor_model_parallel_size=2'], 'model.sequence_parallel', true],
    [['model.tensor_model_parallel_size=2', 'model.sequence_parallel=false'], 'model.sequence_parallel', false],
    [['train.train_iters=77'], 'scheduler.lr_decay_iters', 77],
    [['train.train_iters=77', 'scheduler.lr_decay_iters=60'], 'scheduler.lr_decay_iters', 60],
    [['train.train_iters=77'], 'scheduler.lr_warmup_iters', 7],
    [['scheduler.lr_warmup_iters=0'], 'scheduler.lr_warmup_iters', 0],
    [['optimizer.use_distributed_optimizer=false'], 'ddp.data_parallel_sharding_strategy', 'no_shard'],
  ])('%j: %s is %j', (texts, path, value) => {
    const config = resolveConfig({ recipe: tiny, overrides: texts.map((text) => ({ text, place: '' })) });
    expect(config).toHaveProperty(path, value);
  });

  test('the sizes of explicit models', () => {
    const sizes =
      'vocab_size: 64, hidden_size: 48, intermediate_size: 96, num_hidden_layers: 2, num_attention_heads: 4';
    const { model, scheduler } = resolveConfig({ file: yaml(`model: {${sizes}}\ntrain: {train_iters: 3}`) });
    expect(model).toMatchObject({ num_key_value_heads: 4, head_dim: 12, rope_theta: 1e6, hf_path: null });
    expect(scheduler).toMatchObject({ lr_decay_iters: 3, lr_warmup_iters: 0 });
  });
});

describe('problems', () => {
  test.each<[string, string]>([
    [
      'train:\n  train_iters: 0\n',
      'MB_CONFIG_VALUE run.yaml:2:3 train.train_iters: expected an integer of at least 1, got 0',
    ],
    [
      'train:\n  train_iters: 8x\n',
      'MB_CONFIG_VALUE run.yaml:2:3 train.train_iters: expected an integer of at least 1, got "8x"',
    ],
    [
      '\nmodel:\n    num_layer: 3\n',
      'MB_CONFIG_UNKNOWN_KEY run.yaml:3:5 model.num_layer: unknown key (did you mean num_layers?)',
    ],
    ['modle:\n  seq_length: 3\n', 'MB_CONFIG_UNKNOWN_KEY run.yaml:1:1 modle: unknown key (did you mean model?)'],
    [
      'model: {lr_decay_stile: cosine}',
      'MB_CONFIG_UNKNOWN_KEY run.yaml:1:9 model.lr_decay_stile: unknown key (did you mean scheduler.lr_decay_style?)',
    ],
    ['model: {xyzzyq: 1}', 'MB_CONFIG_UNKNOWN_KEY run.yaml:1:9 model.xyzzyq: unknown key'],
    ['model: 3', 'MB_CONFIG_VALUE run.yaml:1:1 model: expected a section of keys, got 3'],
    ['- model', 'MB_CONFIG_SYNTAX run.yaml:1:1: expected sections of keys'],
    [
      'model: {a: 1',
      'MB_CONFIG_SYNTAX run.yaml:1:13: Flow map in block collection must be sufficiently indented and end with a }',
    ],
    ['rng: {seed: 1}\nrng: {seed: 2}', 'MB_CONFIG_SYNTAX run.yaml:2:1: Map keys must be unique'],
    [
      'model:\n  num_layers: 2\n  num_hidden_layers: 3',
      'MB_CONFIG_VALUE run.yaml:3:3 model.num_hidden_layers: set twice; also at run.yaml:2:3',
    ],
    [
      'dist: {use_gloo_process_groups: true}',
      'MB_CONFIG_VALUE run.yaml:1:8 dist.use_gloo_process_groups: must be false: Gloo groups are not supported ' +
        '(groups run over NCCL on GPUs and shared memory on the CPU)',
    ],
    [
      'dist: {use_decentralized_pg: false}',
      'MB_CONFIG_VALUE run.yaml:1:8 dist.use_decentralized_pg: must be true: there is no global parallel state to ' +
        'fall back to; groups are always explicit',
    ],
    [
      'dataset: {type: jsnl, path: x}',
      'MB_CONFIG_VALUE run.yaml:1:11 dataset.type: expected one of mock, indexed, jsonl, text, chat, got "jsnl" (did you mean jsonl?)',
    ],
    [
      'dataset: {type: jsonl}',
      'MB_CONFIG_MISSING run.yaml:1:1 dataset.path: missing; file of {"input_ids": ' +
        '[seq_length + 1 tokens]} or {"text": ...} lines',
    ],
    [
      'dataset: {type: mock, shuffle: true}',
      'MB_CONFIG_UNKNOWN_KEY run.yaml:1:23 dataset.shuffle: is for dataset.type indexed or jsonl or text or chat, and it is mock; set dataset.type too',
    ],
    [
      'mixed_precision: bf16-mixed',
      'MB_CONFIG_VALUE run.yaml:1:1 mixed_precision: expected one of auto, bf16_mixed, fp8_mixed, fp32, got "bf16-mixed" (did you mean bf16_mixed?)',
    ],
    [
      'mixed_precision: fp8',
      'MB_CONFIG_VALUE run.yaml:1:1 mixed_precision: expected one of auto, bf16_mixed, fp8_mixed, fp32, got "fp8" (did you mean fp8_mixed?)',
    ],
    [
      'optimizer: {adam_beta1: 1}',
      'MB_CONFIG_VALUE run.yaml:1:13 optimizer.adam_beta1: expected a number of at least 0, below 1, got 1',
    ],
    [
      'checkpoint: {save_interval: often}',
      'MB_CONFIG_VALUE run.yaml:1:14 checkpoint.save_interval: expected an integer of at least 1, or null, got "often"',
    ],
    [
      'checkpoint: {save: null, save_interval: 10}',
      'MB_CONFIG_VALUE run.yaml:1:26 checkpoint.save_interval: nothing is saved; set checkpoint.save to a folder, or ' +
        'leave it unset',
    ],
    [
      'checkpoint: {save: here, keep_every: 10}',
      'MB_CONFIG_VALUE run.yaml:1:26 checkpoint.keep_every: all checkpoints are kept; set checkpoint.keep_last, or ' +
        'leave it unset',
    ],
    [
      'scheduler: {lr_warmup_iters: 50}',
      'MB_CONFIG_VALUE run.yaml:1:13 scheduler.lr_warmup_iters: 50 updates of warm-up do not end before ' +
        'scheduler.lr_decay_iters 50; lower it (0 is allowed) or raise lr_decay_iters (default: train_iters)',
    ],
    [
      'scheduler: {lr_decay_style: WSD}',
      'MB_CONFIG_VALUE scheduler.lr_wsd_decay_iters: missing; WSD needs the length of its final decay',
    ],
    [
      'optimizer: {lr: 1.0e-5}',
      'MB_CONFIG_VALUE recipe qwen3-tiny optimizer.min_lr: 0.0003 is above optimizer.lr 0.00001; set both',
    ],
    [
      'ddp: {data_parallel_sharding_strategy: no_shard}',
      'MB_CONFIG_VALUE run.yaml:1:7 ddp.data_parallel_sharding_strategy: no_shard contradicts ' +
        'optimizer.use_distributed_optimizer true; change one of them',
    ],
    ['{constructor: 1}', 'MB_CONFIG_UNKNOWN_KEY run.yaml:1:2 constructor: unknown key'],
    ['__proto__: {a: 1}', 'MB_CONFIG_UNKNOWN_KEY run.yaml:1:1 __proto__: unknown key'],
    ['model: {__proto__: {a: 1}}', 'MB_CONFIG_UNKNOWN_KEY run.yaml:1:9 model.__proto__: unknown key'],
    ['rng: {}\n---\nrng: {}', 'MB_CONFIG_SYNTAX run.yaml:2:1: a second document; a configuration is one'],
    [
      'model: {num_hidden_layers: 1e9}',
      'MB_CONFIG_VALUE run.yaml:1:9 model.num_hidden_layers: expected an integer of at least 1, of at most 10000, got 1000000000',
    ],
    [
      'train: {global_batch_size: 1e9}',
      'MB_CONFIG_VALUE run.yaml:1:9 train.global_batch_size: expected an integer of at least 1, of at most 1000000, got 1000000000',
    ],
    [
      'dist: {timeout_s: 1e9}',
      'MB_CONFIG_VALUE run.yaml:1:8 dist.timeout_s: expected a number above 0, of at most 1000000, got 1000000000',
    ],
    [
      'model: {num_key_value_heads: 3}',
      'MB_CONFIG_VALUE run.yaml:1:9 model.num_key_value_heads: 3 does not divide model.num_attention_heads 8',
    ],
    [
      'model: {hf_path: nowhere}',
      "MB_CONFIG_HF run.yaml:1:9 model.hf_path: cannot read nowhere/config.json: ENOENT: no such file or directory, stat 'nowhere'",
    ],
  ])('%j', (text, message) => {
    expect(failure({ recipe: tiny, file: yaml(text) })).toBe(message);
  });

  test.each([
    'model.expert_model_parallel_size=2',
    'ddp.grad_reduce_in_fp32=false',
    'ddp.bucket_size=1000',
    'logger.wandb_project=x',
    'peft={type: lora, lora_A_init_method: xavier}',
  ])('%s is refused, not ignored', (text) => {
    expect(failure(override(text))).toMatch(/^MB_CONFIG_NOT_BUILT argv\[4\] .*(not|is) built yet/);
  });

  test.each<[string, string]>([
    ['modell.seq_length=1', 'MB_CONFIG_UNKNOWN_KEY argv[4] modell: unknown key (did you mean model?)'],
    ['x=1', 'MB_CONFIG_UNKNOWN_KEY argv[4] x: unknown key'],
    ['seq_length=1', 'MB_CONFIG_UNKNOWN_KEY argv[4] seq_length: unknown key (did you mean model.seq_length?)'],
    ['model.a.b=1', 'MB_CONFIG_SYNTAX argv[4]: model.a.b=1: expected section.key=value'],
    ['train.train_iters=', 'MB_CONFIG_VALUE argv[4] train.train_iters: expected an integer of at least 1, got null'],
    ['optimizer.lr=.inf', 'MB_CONFIG_VALUE argv[4] optimizer.lr: expected a number above 0, got Infinity'],
    ['model.deterministic=yes', 'MB_CONFIG_VALUE argv[4] model.deterministic: expected true or false, got "yes"'],
  ])('override %s', (text, message) => {
    expect(failure(override(text))).toBe(message);
  });

  test('all at once, a line each', () => {
    const file = yaml('model:\n  num_layer: 3\ntrain: {train_iters: ten}\nrgn: {}\n');
    expect(failure({ recipe: tiny, file, overrides: [{ text: 'optimizer.lr=-1', place: 'argv[4]' }] })).toBe(
      [
        'MB_CONFIG_INVALID 4 problems',
        '  run.yaml:2:3 model.num_layer: unknown key (did you mean num_layers?)',
        '  run.yaml:3:9 train.train_iters: expected an integer of at least 1, got "ten"',
        '  argv[4] optimizer.lr: expected a number above 0, got -1',
        '  run.yaml:4:1 rgn: unknown key (did you mean rng?)',
      ].join('\n'),
    );
  });

  test('an empty configuration says what is missing', () => {
    expect(failure({})).toBe(
      'MB_CONFIG_MISSING 2 problems\n' +
        '  model: missing vocab_size, hidden_size, intermediate_size, num_hidden_layers, num_attention_heads; ' +
        'name a recipe (mbridge recipes), a model.hf_path, or the sizes\n' +
        '  train: missing; set train.train_iters',
    );
    expect(failure({ file: yaml('model: {hidden_size: 8}\ntrain: {micro_batch_size: 2}') })).toBe(
      'MB_CONFIG_MISSING 2 problems\n' +
        '  run.yaml:1:1 model: missing vocab_size, intermediate_size, num_hidden_layers, num_attention_heads; ' +
        'name a recipe (mbridge recipes), a model.hf_path, or the sizes\n' +
        '  run.yaml:2:1 train.train_iters: missing; set train.train_iters',
    );
    expect(failure({ file: join(folder, 'none.yaml') })).toContain('none.yaml: cannot read the configuration: ENOENT');
  });
});

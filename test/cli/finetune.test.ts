import { copyFileSync, cpSync, existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test, vi } from 'vitest';
import { fixture, pretrain, stepsOf, temporaryFolder } from '../checkpoint/runs.js';
import { CHATML } from '../data/prepare/corpus.js';
import { mbridge, type Outcome } from './mbridge.js';

vi.setConfig({ testTimeout: 120_000 });

const CHATS = join(import.meta.dirname, '../../fixtures/chats/chats.jsonl');
const HELLO = '{"prompt": "Hi", "completion": "Hello."}';

/** A folder with conversations, and a model that has a tokenizer. */
function workplace(lines?: readonly string[]): { folder: string; data: string; model: string } {
  const folder = temporaryFolder();
  const [data, model] = [join(folder, 'chats.jsonl'), join(folder, 'model')];
  if (lines === undefined) copyFileSync(CHATS, data);
  else writeFileSync(data, lines.join('\n'));
  cpSync(CHATML, model, { recursive: true });
  for (const name of ['config.json', 'model.safetensors']) copyFileSync(join(fixture.folder, name), join(model, name));
  return { folder, data, model };
}

async function finetune(model: string, data: string, ...args: string[]): Promise<Outcome> {
  const log = ['--log-dir', join(data, '../run'), '--json', '--device', 'cpu'];
  const layout = args.includes('--nproc') ? [] : ['--nproc', '1'];
  return await mbridge(['finetune', model, '--data', data, ...log, ...layout, ...args]);
}

const lines = (stdout: string): Record<string, unknown>[] =>
  stdout.split('\n').map((line) => JSON.parse(line) as Record<string, unknown>);

test('it makes a folder that is a model for the next command, and a checkpoint is one as well', async () => {
  const { folder, data, model } = workplace();
  writeFileSync(join(model, 'generation_config.json'), '{"temperature": 0.6}');
  const output = join(folder, 'tuned');
  const args = ['--output', output, '--epochs', '5', 'optimizer.lr=3e-3'];
  const { exitCode, stdout, stderr } = await finetune(model, data, ...args);
  expect(exitCode, stderr).toBe(0);
  // 50 conversations by eights.
  const losses = stepsOf(stdout).map(({ loss }) => loss);
  expect(losses).toHaveLength(7);
  expect(losses.at(-1)).toBeLessThan(losses[0]! - 0.5);
  expect(lines(stdout).at(-1)).toEqual({
    schema: 1,
    type: 'exported',
    folder: output,
    tensors: 46,
    bytes: expect.any(Number) as unknown,
  });
  expect(stepsOf(stdout).every(({ lr }) => lr > 0)).toBe(true);
  expect(readdirSync(output).sort()).toEqual(
    ['config.json', 'generation_config.json', 'model.safetensors', 'tokenizer.json', 'tokenizer_config.json'].sort(),
  );
  for (const name of ['generation_config.json', 'tokenizer.json', 'tokenizer_config.json'])
    expect(readFileSync(join(output, name))).toEqual(readFileSync(join(model, name)));
  const evaluate = async (path: string, ...more: string[]): Promise<number> => {
    const log = ['--log-dir', join(folder, 'eval'), '--json', '--device', 'cpu'];
    const all = ['eval', path, '--data', data, 'model.seq_length=256', ...log, ...more];
    const outcome = await mbridge(all);
    expect(outcome.exitCode, outcome.stderr).toBe(0);
    const result = lines(outcome.stdout).at(-1)!;
    expect(result['bits_per_byte']).toBeGreaterThan(0);
    return result['loss'] as number;
  };
  const [before, after] = [await evaluate(model), await evaluate(output)];
  expect(after).toBeLessThan(before - 0.5);
  expect(Math.abs((await evaluate(`${output}-checkpoints`)) / after - 1)).toBeLessThan(1e-6);
  const again = await finetune(output, data, '--nproc', '2', 'dataset.shuffle=false', 'train.global_batch_size=10');
  expect(Math.abs(stepsOf(again.stdout)[0]!.loss / after - 1), again.stderr).toBeLessThan(1e-5);
  expect(again.stderr).toContain('the trained weights are not kept');
  const fromCheckpoint = await finetune(
    `${output}-checkpoints`,
    data,
    '--tokenizer',
    CHATML,
    '--output',
    join(folder, 'more'),
  );
  expect(fromCheckpoint.exitCode, fromCheckpoint.stderr).toBe(0);
  expect(existsSync(join(folder, 'more/tokenizer.json'))).toBe(true);
});

test.each(['1', '2'])('under fp8_mixed at cp %s samples have a length that its products take', async (cp) => {
  const { data, model } = workplace([HELLO]);
  const fp8 = ['mixed_precision=fp8_mixed', 'model.fp8_first_last_layers_bf16=0'];
  const { exitCode, stderr } = await finetune(model, data, '--nproc', cp, '--cp-size', cp, ...fp8);
  expect(exitCode).toBe(3);
  // All that is wrong is said at once: here it is the CPU and the small model, not the length that nobody gave.
  expect(stderr).toContain('fp8_mixed runs on GPUs only');
  expect(stderr).not.toContain('seq_length');
});

test('a run that ended early goes on when the same command is given again', async () => {
  const { folder, data, model } = workplace();
  const run = (name: string, ...more: string[]): Promise<Outcome> =>
    finetune(model, data, '--output', join(folder, name), '--epochs', '4', ...more);
  const whole = await run('whole');
  const first = await run('parts', 'train.exit_interval=2');
  expect(first.exitCode, first.stderr).toBe(0);
  expect(first.stderr).toContain('parts is not written: update 2 of 5');
  expect(existsSync(join(folder, 'parts'))).toBe(false);
  const rest = await run('parts');
  expect(rest.exitCode, rest.stderr).toBe(0);
  expect([...stepsOf(first.stdout), ...stepsOf(rest.stdout)]).toEqual(stepsOf(whole.stdout));
  const weights = (name: string): Buffer => readFileSync(join(folder, name, 'model.safetensors'));
  expect(weights('parts').equals(weights('whole'))).toBe(true);
  const refused = await run('whole');
  expect(refused.exitCode).toBe(7);
  expect(refused.stderr).toContain('MB_CHECKPOINT_EXISTS');
});

test('conversations are data of pretrain and of validation sets too, the same on every layout', async () => {
  const { folder, data } = workplace();
  const chat = { type: 'chat', path: data };
  const config = {
    ...{ tokenizer: { type: 'huggingface', path: CHATML }, dataset: chat },
    validation: { eval_interval: 2, sets: { chats: { ...chat, shuffle: false } } },
  };
  const args = ['train.train_iters=4', 'model.seq_length=64', 'dataset.too_long=drop'];
  const run = (...layout: string[]) => pretrain({ folder, config, args: [...args, ...layout] });
  const one = await run('--nproc', '1');
  expect(one.exitCode, one.stderr).toBe(0);
  expect(one.stderr).toMatch(/warning: .*chats\.jsonl: \d of 10 conversations have more than 65 tokens.* left out/);
  expect(one.stderr).toMatch(/warning: .*chats\.jsonl: \d of 10 conversations have more than 65 tokens.* cut off/);
  const two = await run('--nproc', '2', '--tp-size', '2');
  stepsOf(two.stdout).forEach(({ loss }, i) => {
    expect(Math.abs(loss / stepsOf(one.stdout)[i]!.loss - 1)).toBeLessThan(1e-5);
  });
  expect(lines(one.stdout).filter(({ type }) => type === 'evaluation')).toHaveLength(2);
});

describe('what cannot be trained on is one error:', () => {
  const unknownRole = '{"messages": [{"role": "wizard", "content": "x"}, {"role": "assistant", "content": "y"}]}';
  test.each([
    ['bad JSON', [HELLO, '', '{"messages": ['], /chats\.jsonl:3: bad JSON/],
    ['no messages', [HELLO, '{"text": "x"}'], /chats\.jsonl:2: neither "messages" nor "prompt"/],
    ['an empty list', ['{"messages": []}'], /chats\.jsonl:1: "messages" is empty/],
    ['no answer', ['{"messages": [{"role": "user", "content": "x"}]}'], /chats\.jsonl:1: the assistant says nothing/],
    ['no content', ['{"messages": [{"role": "assistant"}]}'], /chats\.jsonl:1: message 1: "content" is no text/],
    ['no completion', ['{"prompt": "x"}'], /chats\.jsonl:1: "completion" is no text/],
    ['a role that the template refuses', [HELLO, unknownRole], /chats\.jsonl:2: .*no such role: wizard/],
    ['half a character', ['{"prompt": "\\ud83d", "completion": "y"}'], /chats\.jsonl:1: .*lone surrogate/],
    ['no line', [''], /MB_DATA_EMPTY/],
  ] as const)('%s', async (_, content, found) => {
    const { data, model } = workplace(content);
    const { exitCode, stderr } = await finetune(model, data);
    expect(stderr).toMatch(found);
    expect(exitCode).toBe(7);
  });

  test('a role that the template leaves out', async () => {
    const { data, model } = workplace([HELLO, unknownRole]);
    const path = join(model, 'tokenizer_config.json');
    const config = JSON.parse(readFileSync(path, 'utf8')) as { chat_template: string };
    config.chat_template = config.chat_template.replace(/\{\{- raise_exception\(.*?\) \}\}/, '');
    writeFileSync(path, JSON.stringify(config));
    const { exitCode, stderr } = await finetune(model, data);
    expect(stderr).toMatch(/chats\.jsonl:2: the chat template does not know the role "wizard"/);
    expect(exitCode).toBe(7);
  });

  test('a tokenizer without a template, none at all, and one of more tokens than the model has', async () => {
    const { data, model } = workplace([HELLO]);
    const bare = await finetune(fixture.folder, data);
    expect(bare).toMatchObject({ exitCode: 3, stderr: expect.stringContaining('MB_CHAT_TOKENIZER') as string });
    const small = await finetune(join(fixture.folder, '../qwen3-masked'), data, '--tokenizer', CHATML);
    expect(small).toMatchObject({ exitCode: 3, stderr: expect.stringContaining('MB_TOKENIZER_VOCAB') as string });
    writeFileSync(join(model, 'tokenizer_config.json'), '{"eos_token": "<|endoftext|>"}');
    const { exitCode, stderr } = await finetune(model, data);
    expect(exitCode).toBe(7);
    expect(stderr).toContain('MB_CHAT_TEMPLATE');
  });

  test('a conversation that is too long, where that is asked for', async () => {
    const { data, model } = workplace([HELLO, '', HELLO.replace('Hello', 'Hello '.repeat(60))]);
    const { exitCode, stderr } = await finetune(model, data, 'model.seq_length=64', 'dataset.too_long=error');
    expect(stderr).toMatch(/MB_CHAT_LONG: .*chats\.jsonl:3: the conversation has \d+ tokens, a sample 65/);
    expect(exitCode).toBe(7);
  });

  test('--epochs beside train.train_iters, other data, and bytes as a tokenizer', async () => {
    const { data, model, folder } = workplace([HELLO]);
    const both = await finetune(model, data, '--epochs', '2', 'train.train_iters=3');
    expect(both).toMatchObject({ exitCode: 2, stderr: expect.stringContaining('MB_USAGE') as string });
    const args = ['--nproc', '1'];
    const bytes = await pretrain({ folder, config: { dataset: { type: 'chat', path: data } }, args });
    expect(bytes.exitCode).toBe(3);
    expect(bytes.stderr).toMatch(/dataset\.type: conversations take a chat template/);
    const env = { RANK: '0', LOCAL_RANK: '0', WORLD_SIZE: '2', LOCAL_WORLD_SIZE: '2', MASTER_PORT: '29998' };
    const external = await mbridge(['finetune', model, '--data', data, '--device', 'cpu'], env);
    expect(external.exitCode).toBe(7);
    expect(external.stderr).toMatch(/MB_DATA_UNPREPARED[^]*mbridge data prepare .* --chat, then dataset\.type=chat/);
  });
});

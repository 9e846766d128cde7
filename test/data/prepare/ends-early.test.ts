import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { execa } from 'execa';
import { expect, test } from 'vitest';
import { BIN } from '../../cli/mbridge.js';
import { corpus, pairOf, prepare } from './corpus.js';

const LINE = JSON.stringify({ text: 'Some words that stand in a line of a corpus. '.repeat(20) });

/** Two small files and one that takes a while, prepared in a folder of its own. */
function slowCorpus(): string {
  return corpus({ 'c/a.jsonl': '{"text": "a"}', 'c/b.txt': 'b', 'c/z.jsonl': `${LINE}\n`.repeat(20_000) });
}

function start(folder: string) {
  const args = ['data', 'prepare', '--input', `${folder}/c`, '--tokenizer', 'byte', '--output', `${folder}/out`];
  return execa(process.execPath, [BIN, ...args, '--workers', '1'], { reject: false, env: { NO_COLOR: '1' } });
}

/** Waits until the first two files are done and the third has begun. */
async function untilThird(folder: string): Promise<void> {
  for (;;) {
    let names: string[] = [];
    try {
      names = readdirSync(`${folder}/out.parts`);
    } catch {
      // not there yet
    }
    if (
      names.filter((name) => /^\w{32}\.json$/.test(name)).length === 2 &&
      names.some((name) => /\.bin\.\d+\.tmp$/.test(name))
    )
      return;
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

test.each([
  ['SIGINT', 130],
  ['SIGTERM', 143],
  ['SIGKILL', undefined],
] as const)('%s loses the file in work only, and the next call goes on to the same bytes', async (signal, code) => {
  const folder = slowCorpus();
  const running = start(folder);
  await untilThird(folder);
  running.kill(signal);
  const { exitCode, stderr } = await running;
  expect(exitCode).toBe(code);
  if (code !== undefined) expect(stderr).toContain(`what is done stays in ${folder}/out.parts`);
  expect(readdirSync(folder).sort()).toEqual(['c', 'out.parts']);

  const { stdout } = await prepare(folder, '--input', `${folder}/c`, '--json');
  const whole = readFileSync(join(folder, 'c/z.jsonl')).length;
  expect(JSON.parse(stdout)).toMatchObject({ documents: 20_002, read_bytes: whole });
  expect(readdirSync(folder).sort()).toEqual(['c', 'out.bin', 'out.idx', 'out.json']);
  const afresh = join(folder, 'afresh');
  await prepare(folder, '--input', `${folder}/c`, '--output', afresh);
  expect(pairOf(join(folder, 'out')).files).toEqual(pairOf(afresh).files);
});

test('a second one of the same output is refused while the first works', async () => {
  const folder = slowCorpus();
  const running = start(folder);
  await untilThird(folder);
  const { exitCode, stderr } = await prepare(folder, '--input', `${folder}/c`);
  expect(stderr).toContain('error MB_FOLDER_CLAIMED');
  expect(exitCode).toBe(7);
  expect((await running).exitCode).toBe(0);
});

test('what the system does not let it write is said, and nothing of it stays under the final names', async () => {
  const folder = slowCorpus();
  // 4 MiB: the parts of the first two files fit.
  const line = `ulimit -f 4096; exec ${process.execPath} ${BIN} data prepare --input ${folder}/c --tokenizer byte --output ${folder}/out`;
  const { exitCode, stderr } = await execa('bash', ['-c', line], { reject: false, env: { NO_COLOR: '1' } });
  expect(stderr).toContain('error MB_DATA_WRITE: cannot write ');
  expect(stderr).toContain('larger than this process may write');
  expect(exitCode).toBe(7);
  expect(readdirSync(folder).sort()).toEqual(['c', 'out.parts']);
});

test('a part that is cut is made again', async () => {
  const folder = corpus({ 'c/a.txt': 'one', 'c/z.txt': Buffer.from([0xff]) });
  await prepare(folder, '--input', `${folder}/c`);
  const part = readdirSync(`${folder}/out.parts`).find((name) => name.endsWith('.bin')) as string;
  writeFileSync(`${folder}/out.parts/${part}`, 'x');
  writeFileSync(`${folder}/c/z.txt`, 'two');
  const { stdout } = await prepare(folder, '--input', `${folder}/c`, '--json');
  expect(JSON.parse(stdout)).toMatchObject({ documents: 2, tokens: 8, read_bytes: 6 });
});

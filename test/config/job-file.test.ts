import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { isJobFile, loadJobFile } from '../../src/config/job-file.js';
import { temporaryFolder } from '../job/launch/processes.js';

function fileOf(text: string): string {
  const path = join(temporaryFolder(), 'job.yaml');
  writeFileSync(path, text);
  return path;
}

test.each([
  ['models: {}', true],
  ['phases: {}', true],
  ['{"models": {"a": {"run": "qwen3-tiny"}}}', true],
  ['model: {}', false],
  ['model: {}\nmodels: {}', false],
  ['- models', false],
  ['models: [', false],
])('%j is a job: %s', (text, is) => {
  expect(isJobFile(fileOf(text))).toBe(is);
});

test('what is named is there, the rest has its default', () => {
  const text =
    'nproc: 2\nmodels:\n  p: { run: qwen3-tiny, tp: 2, generation: { slots: 1, context: 8 } }\nphases: { x: [p] }';
  expect(loadJobFile(fileOf(text))).toEqual({
    nproc: 2,
    models: { p: { run: 'qwen3-tiny', set: [], tp: 2, generation: { slots: 1, context: 8 } } },
    phases: { x: ['p'] },
  });
});

const model = (keys: string): string => `models: { p: { run: x, ${keys} } }`;
test.each([
  ['models: [', 'MB_CONFIG_SYNTAX', /job\.yaml:1:/],
  ['nproc: 1', 'MB_JOB', /job\.yaml models: expected a section, and it is missing$/],
  ['models: [a]', 'MB_JOB', /job\.yaml models: expected a section, received array$/],
  ['models: {}\nmodel: {}', 'MB_JOB', /job\.yaml: unknown key model \(did you mean models\?\)$/],
  ['models: { p: {} }', 'MB_JOB', /models\.p\.run: expected string, and it is missing$/],
  ['models: { a b: { run: x } }', 'MB_JOB', /models\.a b: a name has up to 16 letters/],
  [model('tp: 0'), 'MB_JOB', /models\.p\.tp: Too small/],
  [model('rank: 0'), 'MB_JOB', /models\.p: unknown key rank \(did you mean ranks\?\)$/],
  [model('generation: { slots: 1 }'), 'MB_JOB', /models\.p\.generation\.context: expected .*, and it is missing$/],
  [model('head: words'), 'MB_JOB', /models\.p\.head: Invalid option: expected one of "language"\|"value"$/],
  ['models: {}\nphases: { x: [] }', 'MB_JOB', /phases\.x: Too small/],
  [
    'models: {}\nmemory_gib: 0\ndevice: tpu',
    'MB_JOB',
    /^2 problems\n.*device: Invalid option.*\n.*memory_gib: Too small/,
  ],
])('%j is refused with %s', (text, code, found) => {
  expect(() => loadJobFile(fileOf(text))).toThrow(
    expect.objectContaining({ code, exitCode: 3, message: expect.stringMatching(found) as string }),
  );
});

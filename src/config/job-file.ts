import { z } from 'zod';
import { isPlainObject } from '../base/plain-object.js';
import { didYouMean } from '../base/nearest.js';
import { loadYamlFile } from './load.js';
import { throwProblems, type Problem } from './problem.js';

const count = z.int().min(1);
/** Short enough for a column. */
const name = z.string().regex(/^[\w.-]{1,16}$/, 'a name has up to 16 letters, digits, ".", "_" and "-"');

const modelKeys = {
  run: z.string().min(1),
  set: z.array(z.string()).default([]),
  tp: count.optional(),
  pp: count.optional(),
  vp: count.optional(),
  cp: count.optional(),
  rank_offset: z.int().min(0).optional(),
  ranks: count.optional(),
  trainable: z.union([z.boolean(), z.string().min(1)]).optional(),
  head: z.enum(['language', 'value']).optional(),
  generation: z.strictObject({ slots: count, context: count }).optional(),
  only_generates: z.boolean().optional(),
};
const jobKeys = {
  nproc: count.optional(),
  device: z.enum(['auto', 'cuda', 'cpu']).optional(),
  memory_gib: z.number().positive().optional(),
  models: z.record(name, z.strictObject(modelKeys)),
  phases: z.record(name, z.array(z.string()).min(1)).optional(),
};
const jobSchema = z.strictObject(jobKeys);

/** A job as a file says it. `run` is a recipe or a configuration file, `set` what is laid over it. */
export type JobFile = z.infer<typeof jobSchema>;

/** Whether a file holds a job, several models, and not the configuration of one run. One that cannot be read does not. */
export function isJobFile(path: string): boolean {
  const content = loadYamlFile(path, []);
  return isPlainObject(content) && !('model' in content) && ('models' in content || 'phases' in content);
}

/** @throws MbridgeError MB_JOB, exit 3, with everything that is wrong with the file; MB_CONFIG_... where it is no YAML */
export function loadJobFile(path: string): JobFile {
  const problems: Problem[] = [];
  const content = loadYamlFile(path, problems);
  throwProblems(problems);
  const parsed = jobSchema.safeParse(content);
  if (parsed.success) return parsed.data;
  throwProblems(parsed.error.issues.flatMap((issue) => describe(issue, path)));
  throw parsed.error;
}

function describe(issue: z.core.$ZodIssue, place: string): Problem[] {
  const at = issue.path.map(String);
  const problem = (message: string): Problem => ({ code: 'MB_JOB', place, path: at.join('.'), message });
  if (issue.code === 'unrecognized_keys') {
    const known = at.length === 0 ? Object.keys(jobKeys) : at.length === 2 ? Object.keys(modelKeys) : [];
    return issue.keys.map((key) => problem(`unknown key ${key}${didYouMean(key, known)}`));
  }
  if (issue.code === 'invalid_key') return issue.issues.map(({ message }) => problem(message));
  const message = issue.message
    .replace(/^Invalid input: /, '')
    .replace('expected record', 'expected a section')
    .replace(/received undefined$/, 'and it is missing');
  return [problem(message)];
}

import { isPlainObject } from '../base/plain-object.js';
import { checkValues } from './check-values.js';
import { deriveDefaults } from './derive.js';
import { describeIssues } from './describe-issues.js';
import { mergeLayers, placeIn, type Merged } from './merge.js';
import { notBuilt } from './not-built.js';
import { throwProblems, type Problem } from './problem.js';
import { runConfigSchema, type RunConfig } from './schema.js';
import { settingsOf } from './setting.js';

/**
 * A configuration that a program made or changed, checked by the rules of one that is read: types, limits, what fits
 * together, what is built. The result is a copy with every key present and paths in full.
 * @throws MbridgeError MB_CONFIG_..., exit 3, with everything that is wrong
 */
export function checkConfig(config: RunConfig): RunConfig {
  const problems: Problem[] = [];
  if (!isPlainObject(config)) {
    throwProblems([
      { code: 'MB_CONFIG_VALUE', place: undefined, path: '', message: 'the configuration is no object of sections' },
    ]);
  }
  // Where its sizes came from is known no more, or has changed; they are here.
  const settings = settingsOf(config, 'recipe', '');
  return checkMerged(mergeLayers([settings], problems, []), problems);
}

/** Derives, checks and types what was laid together. @throws MbridgeError exit 3 with it all and `problems` */
export function checkMerged(merged: Merged, problems: readonly Problem[]): RunConfig {
  deriveDefaults(merged);
  const parsed = runConfigSchema.safeParse(merged.values);
  const placeOf = (path: string): string | undefined => placeIn(merged, path);
  if (!parsed.success) throwProblems([...problems, ...describeIssues(parsed.error.issues, merged)]);
  const config = parsed.data as RunConfig;
  throwProblems([...problems, ...checkValues(config, placeOf), ...notBuilt(config, placeOf)]);
  return config;
}

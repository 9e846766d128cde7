import { adapterDifferences, type Adapters } from '../../families/adapters.js';
import { CHANGEABLE_KEYS, describeDifferences, modelDifferences } from '../../families/compare.js';
import type { ModelShape } from '../../families/model-shape.js';
import { badCheckpoint } from '../files/checkpoint-error.js';

/**
 * Refuses weights that were made for another function than the run's: shapes may fit all the same.
 * @param path the file that says what the weights are
 * @param allowed `model` keys that may differ, as `checkpoint.allow_model_changes` names them
 * @throws MbridgeError exit 7, with every difference and both values
 */
export function requireSameModel(
  path: string,
  found: ModelShape,
  wanted: ModelShape,
  allowed: readonly string[] = [],
): void {
  const different = modelDifferences(found, wanted, allowed);
  if (different.length === 0) return;
  const changeable: readonly string[] = CHANGEABLE_KEYS;
  const keys = different.map(({ key }) => key);
  const allow = keys.every((key) => changeable.includes(key))
    ? `; or, to go on from these weights as they are, set checkpoint.allow_model_changes=[${keys.join(', ')}]`
    : '';
  const hint = `set model.hf_path to the folder of the weights, or these keys to its values${allow}`;
  throw badCheckpoint('MODEL', path, `describes another model: ${describeDifferences(different)}`, hint, {
    differences: different,
  });
}

/**
 * Refuses a checkpoint of other adapters than the run's.
 * @param path the file that says what it has
 * @throws MbridgeError exit 7
 */
export function requireSameAdapters(path: string, found: Adapters | null, wanted: Adapters | null): void {
  const different = adapterDifferences(found, wanted);
  if (different.length === 0) return;
  const hint =
    found === null
      ? 'begin from its weights: checkpoint.pretrained_checkpoint in place of checkpoint.load'
      : 'set section peft to what it was, or make one model of both: mbridge checkpoint export';
  throw badCheckpoint('ADAPTER', path, different.join('; '), hint);
}

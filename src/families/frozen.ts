import { layerPrefix } from './decoder.js';
import type { ModelShape } from './model-shape.js';
import { layerLinears, modelParameters } from './parameters.js';

/** Whether one of `patterns` names a parameter: `*` stands for any letters. */
export function namedBy(patterns: readonly string[]): (parameter: string) => boolean {
  const expressions = patterns.map((pattern) => {
    const parts = pattern.split('*').map((part) => part.replace(/[.+?^${}()|[\]\\]/g, '\\$&'));
    return new RegExp(`^${parts.join('.*')}$`);
  });
  return (parameter) => expressions.some((expression) => expression.test(parameter));
}

/** What keeps the parameters that `patterns` name from being frozen; null where nothing does. */
export function frozenProblem(shape: ModelShape, patterns: readonly string[]): string | null {
  const names = modelParameters(shape).map(({ name }) => name);
  const idle = patterns.find((pattern) => !names.some(namedBy([pattern])));
  if (idle !== undefined) {
    const examples = [names[0], names[1], names.at(-1)].join(', ');
    return `'${idle}' names no parameter of this model; they are named as ${examples}`;
  }
  const frozen = namedBy(patterns);
  if (names.every(frozen)) return 'every parameter is frozen; leave one to be trained';
  // Products that are one matrix here have one gradient.
  for (let layer = 0; layer < shape.numLayers; layer++) {
    for (const { parts, bias } of layerLinears(shape)) {
      for (const kind of bias ? ['weight', 'bias'] : ['weight']) {
        const together = parts.map(({ name }) => `${layerPrefix(layer)}${name}.${kind}`);
        const [kept, other] = [together.find(frozen), together.find((name) => !frozen(name))];
        if (kept === undefined || other === undefined) continue;
        return `${kept} is frozen and ${other} is not, and they are one matrix here; name all of ${together.join(', ')}, or none`;
      }
    }
  }
  return null;
}

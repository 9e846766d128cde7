import { MbridgeError } from '../../base/errors.js';
import { badData } from '../data-error.js';
import { packageVersion } from '../../base/package-root.js';
import { joinPairs, refuseExisting } from './join-pairs.js';
import { checkBelongs, readSidecar, type Sidecar } from '../indexed/sidecar.js';
import { Staging } from './staging.js';

/**
 * Puts pairs that one tokenizer made end to end.
 * @throws MbridgeError exit 3 where they do not belong together, exit 7 where one is damaged or the output is there
 */
export async function mergePairs(prefixes: readonly string[], output: string): Promise<Sidecar> {
  refuseExisting(output);
  const sidecars = prefixes.map((prefix) => {
    const sidecar = readSidecar(prefix);
    const hint = 'merge pairs that `mbridge data prepare` wrote';
    if (sidecar === undefined)
      throw badData('MB_DATA_INDEX', `${prefix}.json`, 'is not there: the tokenizer is not known', hint);
    return sidecar;
  });
  const first = sidecars[0] as Sidecar;
  sidecars.forEach((sidecar, i) => checkTogether(prefixes[i] as string, sidecar, first));
  const sum = (key: 'documents' | 'tokens' | 'bad' | 'empty'): number => {
    return sidecars.reduce((total, sidecar) => total + sidecar[key], 0);
  };
  const merged: Sidecar = {
    ...first,
    mbridge: packageVersion(),
    ...{ documents: sum('documents'), tokens: sum('tokens'), bad: sum('bad'), empty: sum('empty') },
    inputs: sidecars.flatMap(({ inputs }) => inputs),
  };
  const staging = new Staging(output, []);
  try {
    await joinPairs(prefixes, output, staging.folder, merged);
  } finally {
    staging.remove();
  }
  return merged;
}

function checkTogether(prefix: string, sidecar: Sidecar, first: Sidecar): void {
  checkBelongs(prefix, sidecar, first.tokenizer);
  const { eod, dtype, content } = sidecar;
  if (content !== first.content) {
    throw new MbridgeError('config', 'MB_DATA_TYPE', `${prefix} holds ${content}, the first pair ${first.content}`, {
      hint: 'merge texts with texts, and conversations with conversations',
    });
  }
  if (eod === first.eod && dtype === first.dtype) return;
  const found = `${prefix} ends documents with ${eod} (${dtype}), the first pair with ${first.eod} (${first.dtype})`;
  throw new MbridgeError('config', 'MB_DATA_TOKENIZER', found, { hint: 'prepare them with the same --eod' });
}

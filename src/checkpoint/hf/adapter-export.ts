import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { adapterParameters } from '../../families/adapters.js';
import { modelShape } from '../../families/model-shape.js';
import { ADAPTER_CONFIG, newPeftConfig } from '../../families/peft-config.js';
import { badCheckpoint } from '../files/checkpoint-error.js';
import { writeDurably, writeJsonDurably } from '../files/durable-files.js';
import { layOut } from '../files/safetensors-header.js';
import type { Checkpoint } from '../format/checkpoint.js';
import { STATE_FILE } from '../format/checkpoint-format.js';
import { ADAPTER_FILE, PEFT_PREFIX } from './adapter-folder.js';
import { modelOfSizes } from './hf-files.js';
import { writeNewFolder } from './new-folder.js';

/**
 * Writes a checkpoint's adapters alone, in float32, as a folder that peft reads.
 * @param base the folder of the model that they are for; by default the one that the run began from
 * @throws MbridgeError exit 7 for a damaged checkpoint or one without adapters, or a target that is not empty
 */
export async function exportAdapter(
  checkpoint: Checkpoint,
  target: string,
  base?: string,
): Promise<{ readonly tensors: number; readonly bytes: number; readonly files: readonly string[] }> {
  const { adapters, state } = checkpoint;
  if (adapters === null) {
    const hint = 'leave --adapter out, which writes the whole model';
    throw badCheckpoint('ADAPTER', join(checkpoint.folder, STATE_FILE), 'there are no adapters there', hint);
  }
  const shape = modelShape({ model: modelOfSizes(state.model) });
  checkpoint.check(shape, ['language', 'value']);
  const began = base ?? state.config?.model.hf_path ?? state.config?.checkpoint.pretrained_checkpoint ?? null;
  const model = began !== null && existsSync(began) ? resolve(began) : began;
  const parameters = adapterParameters(shape, adapters);
  const specs = parameters.map(({ name, shape: size }) => {
    return { name: `${PEFT_PREFIX}${name}`, dtype: checkpoint.tensor(name).dtype, shape: size };
  });
  const { head, header } = layOut(specs, { format: 'pt' });
  const content = async function* (): AsyncGenerator<Uint8Array> {
    yield head;
    for (const { name } of header.tensors) yield* checkpoint.bytesOf(name.slice(PEFT_PREFIX.length));
  };
  return writeNewFolder(target, async (folder) => {
    await writeDurably(join(folder, ADAPTER_FILE), content());
    await writeJsonDurably(join(folder, ADAPTER_CONFIG), newPeftConfig(adapters, model));
    const bytes = header.tensors.reduce((sum, tensor) => sum + tensor.bytes, 0);
    return { tensors: specs.length, bytes, files: [ADAPTER_FILE, ADAPTER_CONFIG] };
  });
}

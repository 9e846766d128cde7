import { join } from 'node:path';
import { staysInside } from '../../base/own-file.js';
import type { Device } from '../../engine/device.js';
import type { Tensor } from '../../engine/tensor.js';
import { adapterDifferences, adapterParameters, type Adapters } from '../../families/adapters.js';
import type { ModelShape } from '../../families/model-shape.js';
import { ADAPTER_CONFIG, readPeftConfig } from '../../families/peft-config.js';
import type { ParameterSpec } from '../../model/parameters/parameter.js';
import type { WeightSource } from '../../model/parameters/weight-source.js';
import { badCheckpoint } from '../files/checkpoint-error.js';
import { SafetensorsFile } from '../files/safetensors.js';
import { isFloatDtype } from '../files/safetensors-convert.js';
import { readSliceInto, sliceSize } from '../files/safetensors-slice.js';
import { leadsOut } from './hf-files.js';

export const ADAPTER_FILE = 'adapter_model.safetensors';
/** Before the name of each parameter in peft's file. */
export const PEFT_PREFIX = 'base_model.model.';

/** Adapters of a folder, as peft saves it: each rank reads the rows and columns that it holds. */
export class AdapterFolder implements WeightSource {
  readonly #file: SafetensorsFile;
  readonly #device: Device;

  private constructor(file: SafetensorsFile, device: Device) {
    this.#file = file;
    this.#device = device;
  }

  /**
   * Opens the folder, and checks that it has what `wanted` says, and every tensor of a model of `shape`, before anything is read.
   * @throws MbridgeError exit 7
   */
  static async open(folder: string, shape: ModelShape, wanted: Adapters, device: Device): Promise<AdapterFolder> {
    const said = readPeftConfig(folder);
    const config = join(folder, ADAPTER_CONFIG);
    if ('problem' in said) throw badCheckpoint('ADAPTER', folder, said.problem, 'name a folder that peft saved');
    const different = adapterDifferences(said.adapters, wanted);
    if (different.length > 0) {
      const hint = 'leave peft.dim, alpha and target_modules out, which are taken from the folder then';
      throw badCheckpoint('ADAPTER', config, `is of another adapter: ${different.join('; ')}`, hint);
    }
    if (!staysInside(folder, ADAPTER_FILE)) throw leadsOut(join(folder, ADAPTER_FILE));
    const file = await SafetensorsFile.open(join(folder, ADAPTER_FILE));
    try {
      const parameters = adapterParameters(shape, wanted);
      for (const parameter of parameters) checkTensor(file, parameter);
      const known = new Set(parameters.map(({ name }) => `${PEFT_PREFIX}${name}`));
      const stray = [...file.tensors.keys()].find((name) => !known.has(name));
      if (stray !== undefined) throw otherModel(file.path, `has ${stray}, and the model has no such adapter`);
    } catch (error) {
      await file.close();
      throw error;
    }
    return new AdapterFolder(file, device);
  }

  async fill({ name, rows, cols }: ParameterSpec, out: Tensor): Promise<void> {
    const stored = `${PEFT_PREFIX}${name}`;
    const slice = {
      ...{ rowStart: rows.start, rowEnd: rows.start + rows.count },
      ...{ colStart: cols.start, colEnd: cols.start + cols.count },
    };
    const values = new Float32Array(sliceSize(this.#file.tensor(stored), slice));
    await readSliceInto(this.#file, stored, slice, values);
    this.#device.write(out, values);
  }

  close(): Promise<void> {
    return this.#file.close();
  }
}

function checkTensor(file: SafetensorsFile, parameter: { name: string; shape: readonly number[] }): void {
  const name = `${PEFT_PREFIX}${parameter.name}`;
  const found = file.tensors.get(name);
  if (found === undefined) throw otherModel(file.path, `has no tensor ${name}`);
  const [is, expected] = [found.shape.join(', '), parameter.shape.join(', ')];
  if (is !== expected) throw otherModel(file.path, `${name} is [${is}], the model expects [${expected}]`);
  if (!isFloatDtype(found.dtype)) throw otherModel(file.path, `${name} is ${found.dtype}, expected floats`);
}

function otherModel(path: string, found: string): Error {
  return badCheckpoint('ADAPTER', path, found, 'name the model that the adapter was trained for');
}

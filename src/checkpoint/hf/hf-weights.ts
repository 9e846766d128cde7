import { join } from 'node:path';
import { EMBEDDING } from '../../families/decoder.js';
import { modelShape, type ModelShape } from '../../families/model-shape.js';
import type { Device } from '../../engine/device.js';
import type { Tensor } from '../../engine/tensor.js';
import type { ParameterSpec } from '../../model/parameters/parameter.js';
import type { WeightSource } from '../../model/parameters/weight-source.js';
import { requireSameModel } from '../format/same-model.js';
import { readHfModel } from './hf-files.js';
import { HfFolder } from './hf-folder.js';
import { modelParameters } from '../../families/parameters.js';

/** Weights of a Hugging Face folder: each rank reads the rows and columns that it holds. */
export class HfWeights implements WeightSource {
  readonly head = 'language';
  readonly adapters = null;
  readonly #folder: HfFolder;
  readonly #device: Device;
  readonly #tied: boolean;

  private constructor(folder: HfFolder, device: Device, tied: boolean) {
    this.#folder = folder;
    this.#device = device;
    this.#tied = tied;
  }

  /**
   * Opens the folder and checks what its config.json says, and every tensor's name and shape, against the model before
   * anything is read.
   * @param allowed `model` keys that may differ
   */
  static async open(
    path: string,
    shape: ModelShape,
    device: Device,
    allowed: readonly string[] = [],
  ): Promise<HfWeights> {
    const folder = await HfFolder.open(path);
    try {
      requireSameModel(join(path, 'config.json'), modelShape({ model: readHfModel(path) }), shape, allowed);
      folder.check(modelParameters(shape));
    } catch (error) {
      await folder.close();
      throw error;
    }
    return new HfWeights(folder, device, shape.tieWordEmbeddings);
  }

  async fill(spec: ParameterSpec, out: Tensor): Promise<void> {
    const { rows, cols } = spec;
    const slice =
      spec.globalShape.length === 1
        ? { rowStart: cols.start, rowEnd: cols.start + cols.count }
        : {
            rowStart: rows.start,
            rowEnd: rows.start + rows.count,
            colStart: cols.start,
            colEnd: cols.start + cols.count,
          };
    if (this.#tied && spec.name === EMBEDDING) await this.#folder.requireTied(slice);
    this.#device.write(out, await this.#folder.readSlice(spec.name, slice));
  }

  close(): Promise<void> {
    return this.#folder.close();
  }
}

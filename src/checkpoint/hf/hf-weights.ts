import type { ModelShape } from '../../families/model-shape.js';
import type { Device } from '../../engine/device.js';
import type { Tensor } from '../../engine/tensor.js';
import type { ParameterSpec } from '../../model/parameters/parameter.js';
import type { WeightSource } from '../../model/parameters/weight-source.js';
import { HfFolder } from './hf-folder.js';
import { qwen3Parameters } from '../../families/hf-names.js';

/** Weights of a Hugging Face folder: each rank reads the rows and columns that it holds. */
export class HfWeights implements WeightSource {
  readonly #folder: HfFolder;
  readonly #device: Device;

  private constructor(folder: HfFolder, device: Device) {
    this.#folder = folder;
    this.#device = device;
  }

  /** Opens the folder and checks every tensor's name and shape against the model before anything is read. */
  static async open(path: string, shape: ModelShape, device: Device): Promise<HfWeights> {
    const folder = await HfFolder.open(path);
    try {
      folder.check(qwen3Parameters(shape));
    } catch (error) {
      await folder.close();
      throw error;
    }
    return new HfWeights(folder, device);
  }

  async fill(spec: ParameterSpec, out: Tensor): Promise<void> {
    const { rows, cols } = spec;
    const slice =
      spec.globalShape.length === 1
        ? {}
        : {
            rowStart: rows.start,
            rowEnd: rows.start + rows.count,
            colStart: cols.start,
            colEnd: cols.start + cols.count,
          };
    this.#device.write(out, await this.#folder.readSlice(spec.name, slice));
  }

  close(): Promise<void> {
    return this.#folder.close();
  }
}

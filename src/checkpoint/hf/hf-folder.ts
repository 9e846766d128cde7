import { stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { MbridgeError } from '../../base/errors.js';
import { EMBEDDING, HEAD } from '../../families/decoder.js';
import { isFloatDtype } from '../files/safetensors-convert.js';
import { staysInside } from '../../base/own-file.js';
import { readTextFile } from '../../base/regular-file.js';
import { fileError } from '../files/safetensors-error.js';
import { leadsOut } from './hf-files.js';
import { readSliceInto, sliceSize, type TensorSlice } from '../files/safetensors-slice.js';
import { SafetensorsFile, type TensorEntry } from '../files/safetensors.js';

const SINGLE = 'model.safetensors';
const INDEX = 'model.safetensors.index.json';
/** Before the name of each parameter of the base model, in the model with its head. */
const BASE = 'model.';
/** More than any index has. */
const MOST_BYTES = 256 << 20;

/** Where a tensor lies: its file, and its name there. */
interface Stored {
  readonly file: SafetensorsFile;
  readonly name: string;
}

/**
 * The weights of a Hugging Face folder: model.safetensors, or else the shards named by model.safetensors.index.json.
 * Tensors have the names of the whole model, also where the file holds those of its base (`layers.0...` without
 * `model.` before it), as transformers loads it.
 */
export class HfFolder {
  readonly path: string;
  readonly #files: readonly SafetensorsFile[];
  readonly #stored: ReadonlyMap<string, Stored>;

  private constructor(path: string, files: readonly SafetensorsFile[], fileOf: ReadonlyMap<string, SafetensorsFile>) {
    this.path = path;
    this.#files = files;
    const whole = [...fileOf.keys()].some((name) => name.startsWith(BASE));
    const nameOf = (name: string): string => (whole || name === HEAD ? name : `${BASE}${name}`);
    this.#stored = new Map([...fileOf].map(([name, file]) => [nameOf(name), { file, name }]));
  }

  /**
   * Opens every shard and checks its header. Where there is model.safetensors, an index beside it is of an older save:
   * transformers does not look at it either. Throws an MbridgeError (exit 7) naming the file that is amiss.
   */
  static async open(path: string): Promise<HfFolder> {
    const index = await readIndex(path);
    const files = new Map<string, SafetensorsFile>();
    try {
      for (const name of index === undefined ? [SINGLE] : new Set(index.values())) {
        if (!staysInside(path, name)) throw leadsOut(join(path, name));
        files.set(name, await SafetensorsFile.open(join(path, name)));
      }
      const fileOf = index === undefined ? everyTensor(files.get(SINGLE)) : indexedTensors(path, index, files);
      return new HfFolder(path, [...files.values()], fileOf);
    } catch (error) {
      await closeAll(files.values());
      throw error;
    }
  }

  /** Names of all tensors. */
  names(): string[] {
    return [...this.#stored.keys()];
  }

  has(name: string): boolean {
    return this.#stored.has(name);
  }

  /** The entry of a tensor; throws an MbridgeError that names it when no shard has it. */
  tensor(name: string): TensorEntry {
    const { file, name: stored } = this.#find(name);
    return file.tensor(stored);
  }

  /** The shard that holds a tensor. */
  file(name: string): SafetensorsFile {
    return this.#find(name).file;
  }

  #find(name: string): Stored {
    const stored = this.#stored.get(name);
    if (stored !== undefined) return stored;
    throw this.#missing(name);
  }

  /**
   * Checks that every parameter is there, of floats, with its shape; throws one MbridgeError that counts what is wrong and names
   * the first. Tensors that no parameter asks for (such as the head of a tied model) are ignored.
   */
  check(parameters: Iterable<{ readonly name: string; readonly shape: readonly number[] }>): void {
    const wrong: MbridgeError[] = [];
    for (const { name, shape } of parameters) {
      if (!this.has(name)) {
        wrong.push(this.#missing(name));
        continue;
      }
      const { shape: found, dtype } = this.tensor(name);
      if (!isFloatDtype(dtype)) wrong.push(notFloats(this.file(name).path, name, dtype));
      if (found.length !== shape.length || found.some((size, i) => size !== shape[i])) {
        wrong.push(wrongShape(this.file(name).path, name, shape, found));
      }
    }
    const [first] = wrong;
    if (first === undefined) return;
    if (wrong.length === 1) throw first;
    throw new MbridgeError('io', first.code, `${first.message} (and ${wrong.length - 1} more tensors are amiss)`, {
      ...(first.hint === undefined ? {} : { hint: first.hint }),
      details: { ...first.details, amiss: wrong.length },
    });
  }

  /** A slice as float32, in row-major order. Reads the needed rows only, a few MiB at a time. */
  async readSlice(name: string, slice: TensorSlice = {}): Promise<Float32Array> {
    const { file, name: stored } = this.#find(name);
    const dst = new Float32Array(sliceSize(file.tensor(stored), slice));
    await readSliceInto(file, stored, slice, dst);
    return dst;
  }

  /** Fills `dst` with the stored bytes of a tensor from its byte `start` on. */
  async readInto(name: string, dst: Uint8Array, start: number): Promise<void> {
    const { file, name: stored } = this.#find(name);
    await file.readInto(stored, dst, start);
  }

  /**
   * Refuses a head of its own beside the embedding that the configuration ties it to: transformers would not tie them.
   * @param slice what of both is compared
   * @throws MbridgeError exit 7
   */
  async requireTied(slice: TensorSlice): Promise<void> {
    if (!this.has(HEAD) || !this.has(EMBEDDING)) return;
    const [a, b] = [await this.readSlice(EMBEDDING, slice), await this.readSlice(HEAD, slice)];
    if (Buffer.compare(new Uint8Array(a.buffer), new Uint8Array(b.buffer)) === 0) return;
    throw new MbridgeError(
      'io',
      'MB_HF_TIED',
      `${this.path}: ${HEAD} is another matrix than ${EMBEDDING}, to which it is tied`,
      {
        hint: 'set tie_word_embeddings to false in its config.json and in the configuration, or remove the tensor from the file',
        details: { folder: this.path },
      },
    );
  }

  async close(): Promise<void> {
    await closeAll(this.#files);
  }

  #missing(name: string): MbridgeError {
    return new MbridgeError('io', 'MB_HF_MISSING_TENSOR', `${this.path} has no tensor ${name}`, {
      hint: 'the weights belong to another model than the configuration, or a shard is missing from the index',
      details: { folder: this.path, tensor: name },
    });
  }
}

/** Tensor name to file name, or undefined for a folder with the single file. */
async function readIndex(folder: string): Promise<Map<string, string> | undefined> {
  const path = join(folder, INDEX);
  if (await isFile(join(folder, SINGLE))) return undefined;
  let text: string;
  try {
    if (!staysInside(folder, INDEX)) throw leadsOut(path);
    text = readTextFile(path, MOST_BYTES);
  } catch (cause) {
    if (cause instanceof Error && 'code' in cause && (cause.code === 'ENOENT' || cause.code === 'ENOTDIR')) {
      await requireSingle(folder);
      return undefined;
    }
    throw cause instanceof MbridgeError ? cause : fileError('read', path, cause);
  }
  const bad = (found: string): MbridgeError =>
    new MbridgeError('io', 'MB_HF_INDEX', `${path}: ${found}`, {
      hint: 'the file is damaged or truncated; copy or download it again',
      details: { file: path },
    });
  let index: unknown;
  try {
    index = JSON.parse(text);
  } catch (cause) {
    throw bad(`bad JSON: ${cause instanceof Error ? cause.message : String(cause)}`);
  }
  const map: unknown =
    typeof index === 'object' && index !== null && 'weight_map' in index ? index.weight_map : undefined;
  if (typeof map !== 'object' || map === null || Array.isArray(map)) throw bad('no "weight_map" object');
  for (const [name, file] of Object.entries(map)) {
    // A shard lies beside its index: nothing in a downloaded file leads elsewhere.
    if (typeof file !== 'string' || file !== basename(file) || !file.endsWith('.safetensors')) {
      throw bad(
        `weight_map of ${JSON.stringify(name)} is ${JSON.stringify(file)}, not the name of a .safetensors file`,
      );
    }
  }
  return new Map(Object.entries(map as Record<string, string>));
}

function isFile(path: string): Promise<boolean> {
  return stat(path).then(
    (found) => found.isFile(),
    () => false,
  );
}

async function requireSingle(folder: string): Promise<void> {
  try {
    await stat(join(folder, SINGLE));
  } catch (cause) {
    const isFolder = await stat(folder).then(
      (found) => found.isDirectory(),
      () => undefined,
    );
    const found =
      isFolder === undefined ? 'does not exist' : isFolder ? `has neither ${SINGLE} nor ${INDEX}` : 'is not a folder';
    throw new MbridgeError('io', 'MB_HF_NO_WEIGHTS', `${folder} ${found}`, {
      hint: 'give a Hugging Face folder with its weights as safetensors',
      details: { folder },
      cause,
    });
  }
}

function everyTensor(file: SafetensorsFile | undefined): Map<string, SafetensorsFile> {
  return new Map(file === undefined ? [] : [...file.tensors.keys()].map((name) => [name, file]));
}

function indexedTensors(
  folder: string,
  index: ReadonlyMap<string, string>,
  files: ReadonlyMap<string, SafetensorsFile>,
): Map<string, SafetensorsFile> {
  const fileOf = new Map<string, SafetensorsFile>();
  for (const [name, fileName] of index) {
    const file = files.get(fileName);
    if (!file?.tensors.has(name)) {
      throw new MbridgeError(
        'io',
        'MB_HF_MISSING_TENSOR',
        `${join(folder, fileName)} has no tensor ${name}, but ${INDEX} says so`,
        {
          hint: 'index and shards belong to different models, or the shard was replaced',
          details: { folder, file: fileName, tensor: name },
        },
      );
    }
    fileOf.set(name, file);
  }
  return fileOf;
}

function wrongShape(file: string, name: string, expected: readonly number[], found: readonly number[]): MbridgeError {
  const message = `${file}: tensor ${name} is [${found.join(', ')}], the model expects [${expected.join(', ')}]`;
  return new MbridgeError('io', 'MB_HF_SHAPE', message, {
    hint: 'the weights belong to another model than the configuration; set model.hf_path to the folder of the weights',
    details: { file, tensor: name, expected, found },
  });
}

function notFloats(file: string, tensor: string, dtype: string): MbridgeError {
  return new MbridgeError('io', 'MB_SAFETENSORS_DTYPE', `${file}: tensor ${tensor} is ${dtype}, expected floats`, {
    hint: 'weights may be F64, F32, F16 or BF16; quantised weights are not supported',
    details: { file, tensor, dtype },
  });
}

async function closeAll(files: Iterable<SafetensorsFile>): Promise<void> {
  for (const file of files) await file.close();
}

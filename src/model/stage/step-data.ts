import type { FieldSpec, MicroBatch } from '../../data/micro-batch.js';
import { MbridgeError } from '../../base/errors.js';
import type { MemoryPlan } from '../../engine/memory-plan.js';
import type { Device } from '../../engine/device.js';
import { Tensor } from '../../engine/tensor.js';
import type { PerMicroBatch } from '../blocks/stage-env.js';
import type { BatchCut } from './batch-cut.js';
import { DocumentBounds } from './document-bounds.js';

/** The inputs of all micro-batches of a step on the device, sent in one copy. Every field is 4 bytes a token. */
export class StepData {
  /** The most that a step may have. */
  readonly microBatches: number;
  readonly #fields: readonly FieldSpec[];
  readonly #all: Tensor;
  readonly #host: Int32Array;
  readonly #tokens: number;
  readonly #cut: BatchCut | null;
  readonly #bounds: DocumentBounds | null;

  /**
   * @param fields what a batch brings; one that is named twice is sent once
   * @param sizes.tokens of a micro-batch, on this rank
   * @param sizes.cut what takes them from those that a batch brings; null where they are the same
   * @param sizes.documentsIn tokens of a sample, in which attention keeps documents apart; null where it does not
   */
  constructor(
    plan: MemoryPlan,
    fields: readonly FieldSpec[],
    microBatches: number,
    { tokens, cut, documentsIn }: { tokens: number; cut: BatchCut | null; documentsIn: number | null },
  ) {
    this.#fields = [...new Map(fields.map((field) => [field.name, field])).values()];
    const other = fields.find((field) => this.#field(field.name).dtype !== field.dtype);
    if (other !== undefined) {
      throw batchError(`the field ${other.name} is ${this.#field(other.name).dtype}, not ${other.dtype}`);
    }
    this.microBatches = microBatches;
    this.#tokens = tokens;
    this.#cut = cut;
    const size = microBatches * this.#fields.length * tokens;
    this.#all = plan.tensor('staging', [size], 'i32');
    this.#host = new Int32Array(size);
    this.#bounds = documentsIn === null ? null : new DocumentBounds(plan, { microBatches, tokens, seq: documentsIn });
  }

  /** Of each micro-batch, i32 [tokens, 2]: the keys of its sample that a token may see. Null where documents are not kept apart. */
  get bounds(): PerMicroBatch | null {
    return this.#bounds?.of ?? null;
  }

  /** Pairs of a token and one that it sees, of the micro-batches that were sent last; as many as causality allows by default. */
  get pairs(): number | null {
    return this.#bounds?.pairs ?? null;
  }

  /** A field of each micro-batch, [tokens]. */
  field(name: string): PerMicroBatch {
    const { dtype } = this.#field(name);
    const tensors = Array.from({ length: this.microBatches }, (_, m) => {
      const { region, localOffset, shape } = this.#all.slice(this.#offset(m, name), this.#tokens);
      return new Tensor(region, localOffset, shape, dtype);
    });
    return (microBatch) => tensors[microBatch] as Tensor;
  }

  /**
   * Sends the micro-batches of a step, or of a part of an evaluation.
   * @throws MbridgeError MB_BATCH, exit 3, for other micro-batches than were planned, or fields that are not there
   */
  upload(device: Device, batches: readonly MicroBatch[]): void {
    if (batches.length < 1 || batches.length > this.microBatches) {
      throw batchError(`${batches.length} micro-batches, the model was planned for 1 to ${this.microBatches}`);
    }
    const floats = new Float32Array(this.#host.buffer);
    const brought = this.#cut?.tokens ?? this.#tokens;
    batches.forEach((batch, m) => {
      for (const { name, dtype } of this.#fields) {
        const values = batch[name];
        if (values === undefined) throw batchError(`a micro-batch without the field ${name}`);
        if (values instanceof Float32Array !== (dtype === 'f32'))
          throw batchError(`the field ${name} must be ${dtype}`);
        if (values.length !== brought) {
          throw batchError(`a field ${name} of ${values.length} tokens where ${brought} were planned`);
        }
        const to = dtype === 'f32' ? floats : this.#host;
        const at = this.#offset(m, name);
        if (this.#cut === null) to.set(values, at);
        else this.#cut.take(name, values, to.subarray(at, at + this.#tokens));
      }
    });
    const used = batches.length * this.#fields.length * this.#tokens;
    device.write(this.#all.slice(0, used), this.#host.subarray(0, used));
    this.#bounds?.upload(
      device,
      batches.map(({ positions }) => positions),
      this.#cut,
    );
  }

  #field(name: string): FieldSpec {
    const field = this.#fields.find((candidate) => candidate.name === name);
    if (field === undefined) throw batchError(`the field ${name} is read, and no batch was planned to bring it`);
    return field;
  }

  #offset(microBatch: number, name: string): number {
    return (microBatch * this.#fields.length + this.#fields.indexOf(this.#field(name))) * this.#tokens;
  }
}

function batchError(found: string): MbridgeError {
  return new MbridgeError('config', 'MB_BATCH', found, {
    hint: 'a batch brings the fields of the model and those that its loss names, b*s values each, in the sizes of the StageSpec',
  });
}

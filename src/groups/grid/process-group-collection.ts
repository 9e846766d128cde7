import { MbridgeError } from '../../base/errors.js';
import {
  EXPERT_VIEW,
  expertView,
  FIELD_SOURCES,
  GROUP_FIELDS,
  groupRanks,
  TRAINING_FIELDS,
  viewOf,
  type ExpertSizes,
  type FieldSource,
  type GroupField,
} from './group-fields.js';
import type { HyperCommGrid } from './hyper-comm-grid.js';
import { NON_MEMBER, type GroupRuntime, type NonMember, type ProcessGroup } from './process-group.js';

/** A field's value: a group, "this rank is in none of these groups", or "there are no such groups". */
export type GroupValue<G extends ProcessGroup = ProcessGroup> = G | NonMember | null;

export interface FromGridOptions extends ExpertSizes {
  /** The fields to make, the same on every rank of the grid; by default those that training reads, {@link TRAINING_FIELDS}. */
  readonly wanted?: readonly GroupField[] | 'all';
}

/**
 * The groups of one model on this rank, handed to every component: nothing reads a group from anywhere else.
 * Reading a field that was never set throws. The fields of the dense layers are groups on every rank of the grid, so
 * reading one throws also where it is NON_MEMBER or null; the others, and {@link ProcessGroupCollection.get} for all of
 * them, give those as values.
 */
export class ProcessGroupCollection<G extends ProcessGroup = ProcessGroup> {
  readonly #values: ReadonlyMap<GroupField, GroupValue<G>>;

  /**
   * @param values any of the fields; leave out what is not used
   * @throws MbridgeError MB_PG_UNKNOWN for another name, MB_PG_UNDEFINED for an undefined value
   */
  constructor(values: Partial<Record<GroupField, GroupValue<G>>>) {
    const entries = Object.entries(values) as [GroupField, GroupValue<G> | undefined][];
    this.#values = new Map(
      entries.map(([field, value]) => {
        checkField(field);
        if (value !== undefined) return [field, value];
        throw pgError('UNDEFINED', `the value of process group field '${field}' is undefined`, 'use null for none');
      }),
    );
  }

  /**
   * Creates the wanted fields' groups over a grid [tp, cp, dp, pp], in one fixed order; all ranks of the grid call it.
   * Groups of the same ranks are one group: at cp 1, `dpCp` is `dp` itself. `interDistOpt` is null: there is one
   * optimizer instance. On a rank outside the grid all wanted fields are NON_MEMBER.
   * @param options ep, etp: sizes of the expert dimensions, unless the grid has an 'expert' view already
   */
  static async fromGrid<G extends ProcessGroup>(
    grid: HyperCommGrid,
    runtime: GroupRuntime<G>,
    { wanted = TRAINING_FIELDS, ...sizes }: FromGridOptions = {},
  ): Promise<ProcessGroupCollection<G>> {
    if (Object.keys(sizes).length > 0 || !grid.hasView(EXPERT_VIEW)) {
      grid.registerView(EXPERT_VIEW, expertView(grid, sizes));
    }
    const asked: readonly GroupField[] = wanted === 'all' ? GROUP_FIELDS : wanted;
    for (const field of asked) checkField(field);
    // One that is the same as another comes with it.
    const made = new Set(asked.map((field) => sourceOf(field)));
    const values: Partial<Record<GroupField, GroupValue<G>>> = {};
    for (const field of GROUP_FIELDS) {
      const source: FieldSource = FIELD_SOURCES[field];
      if (!asked.includes(field) && !made.has(field)) continue;
      switch (source.kind) {
        case 'dims':
          values[field] = await grid.createPg(
            source.dims === 'all' ? grid.dimNames : source.dims,
            runtime,
            viewOf(source),
          );
          break;
        case 'derived':
          values[field] = await grid.createDerived(field, ['pp'], source.derive, runtime);
          break;
        case 'same':
          values[field] = values[source.as]!;
          break;
        case 'none':
          values[field] = null;
      }
    }
    return new ProcessGroupCollection(values);
  }

  /** The rank lists of every field, without creating anything. */
  static groupRanks(grid: HyperCommGrid, sizes: ExpertSizes = {}): Record<GroupField, number[][]> {
    return groupRanks(grid, sizes);
  }

  /** Tensor parallel. */
  get tp(): G {
    return this.#member('tp');
  }
  /** Pipeline parallel: the stages of one pipeline, in order. */
  get pp(): G {
    return this.#member('pp');
  }
  /** Model parallel: tp x pp, one replica of the model. */
  get mp(): G {
    return this.#member('mp');
  }
  /** First and last stage of the pipeline: gradients of tied embeddings. */
  get embd(): GroupValue<G> {
    return this.get('embd');
  }
  /** First stage of the pipeline: position embeddings. */
  get posEmbd(): GroupValue<G> {
    return this.get('posEmbd');
  }
  /** Context parallel. */
  get cp(): G {
    return this.#member('cp');
  }
  get tpCp(): G {
    return this.#member('tpCp');
  }
  /** All ranks of one pipeline stage. */
  get tpDpCp(): G {
    return this.#member('tpDpCp');
  }
  /** Data parallel: ranks with different samples. */
  get dp(): G {
    return this.#member('dp');
  }
  /** Gradients are reduced, and the optimizer is sharded, over dp x cp. */
  get dpCp(): G {
    return this.#member('dpCp');
  }
  get ep(): GroupValue<G> {
    return this.get('ep');
  }
  get expertTp(): GroupValue<G> {
    return this.get('expertTp');
  }
  get tpEp(): GroupValue<G> {
    return this.get('tpEp');
  }
  get tpEpPp(): GroupValue<G> {
    return this.get('tpEpPp');
  }
  get expertDp(): GroupValue<G> {
    return this.get('expertDp');
  }
  /** dpCp of one optimizer instance. */
  get intraDpCp(): G {
    return this.#member('intraDpCp');
  }
  get intraExpertDp(): GroupValue<G> {
    return this.get('intraExpertDp');
  }
  /** The same shard in every optimizer instance; null where there is one instance. */
  get interDistOpt(): GroupValue<G> {
    return this.get('interDistOpt');
  }
  /** All ranks of one optimizer instance, so of the whole grid: the gradient norm is summed over it. */
  get intraDistOpt(): G {
    return this.#member('intraDistOpt');
  }

  /** Whether the field was set, to whatever value. */
  has(field: GroupField): boolean {
    checkField(field);
    return this.#values.has(field);
  }

  /** The field's value. @throws MbridgeError MB_PG_UNSET, MB_PG_UNKNOWN */
  get(field: GroupField): GroupValue<G> {
    checkField(field);
    const value = this.#values.get(field);
    if (value !== undefined) return value;
    throw pgError(
      'UNSET',
      `process group field '${field}' was never set`,
      `pass it to ProcessGroupCollection (null if there is no such group), or name it in the \`wanted\` of ProcessGroupCollection.fromGrid on every rank of the grid`,
    );
  }

  /** Member ranks by field, for logs. */
  toJSON(): Record<string, readonly number[] | 'non-member' | null> {
    return Object.fromEntries(
      [...this.#values].map(([field, value]) => [
        field,
        value === null ? null : value === NON_MEMBER ? 'non-member' : value.ranks,
      ]),
    );
  }

  #member(field: GroupField): G {
    const value = this.get(field);
    if (value !== NON_MEMBER && value !== null) return value;
    const found = value === null ? `process group field '${field}' is null` : `this rank is in no '${field}' group`;
    throw pgError('NOT_A_MEMBER', found, `read it with get('${field}') where that may be`);
  }
}

/** The field whose very groups a field has, or itself. */
function sourceOf(field: GroupField): GroupField {
  const source = FIELD_SOURCES[field];
  return source.kind === 'same' ? source.as : field;
}

function checkField(field: string): void {
  if (Object.hasOwn(FIELD_SOURCES, field)) return;
  throw pgError('UNKNOWN', `there is no process group field '${field}'`, `the fields are ${GROUP_FIELDS.join(', ')}`);
}

function pgError(code: string, message: string, hint: string): MbridgeError {
  return new MbridgeError('config', `MB_PG_${code}`, message, { hint });
}

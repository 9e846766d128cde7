import type { Precision } from '../../config/layout.js';
import type { ModelConfig, RunConfig } from '../../config/schema.js';
import type { Adapters } from '../../families/adapters.js';
import type { HeadKind } from '../../families/decoder.js';
import type { DataFingerprint } from '../../data/dataset.js';
import type { FileRecord } from '../files/file-record.js';
import { describeRectangle, wholeOf, type Rectangle } from '../../model/parameters/rectangle.js';
import type { SafetensorsDtype } from '../files/safetensors-header.js';

/**
 * The files of a checkpoint folder. Its tensors lie in safetensors shards; `index.json` says which shard holds which
 * rectangle; `state.json` is the rest of the training state; `commit.json` lists every file with its checksums and is
 * written last: a folder without it is not a checkpoint.
 */
export const FORMAT = 'mbridge-checkpoint';
export const VERSION = 1;
export const INDEX_FILE = 'index.json';
export const STATE_FILE = 'state.json';
export const COMMIT_FILE = 'commit.json';
/** In the folder above the checkpoints: the name of the one to resume from. */
export const LATEST_FILE = 'latest';
/** Files of a Hugging Face folder that are no weights (configuration, tokenizer), as they were imported. */
export const HF_SUBFOLDER = 'hf';

/** First letters of a folder that is being written or removed. Other programs have names like these: see {@link isLeftoverName}. */
export const TEMPORARY = '.tmp-';
/** Before the name of a checkpoint that makes way for another of the same step: it counts until that one has its place. */
const REPLACED = `${TEMPORARY}replaced-`;

/** Folder in which the checkpoint of a step is written. @param token hexadecimal, of this writer alone */
export function temporaryFolderName(step: number, token: string): string {
  return `${TEMPORARY}${stepFolderName(step)}-${token}`;
}

export function removedFolderName(name: string): string {
  return `${TEMPORARY}removed-${name}`;
}

export function replacedFolderName(name: string): string {
  return `${REPLACED}${name}`;
}

/** The final name of a checkpoint that stands aside, or undefined. */
export function nameOfReplaced(name: string): string | undefined {
  const final = name.startsWith(REPLACED) ? name.slice(REPLACED.length) : '';
  return stepOfFolder(final) === undefined ? undefined : final;
}

/** Whether a folder has a name that our unfinished saves and removals have, and no other. */
export function isLeftoverName(name: string): boolean {
  return /^\.tmp-(step-\d{8,}-[0-9a-f]+|removed-step-\d{8,}|replaced-step-\d{8,})$/.test(name);
}

/** Whether a name in a checkpoint's folder is one of ours. */
export function isCheckpointFile(name: string): boolean {
  return (
    /^((weights|optimizer|extra)-\d{5,}\.safetensors|part-\d{5,}\.json)$/.test(name) ||
    [INDEX_FILE, STATE_FILE, COMMIT_FILE, HF_SUBFOLDER].includes(name)
  );
}

export function stepFolderName(step: number): string {
  return `step-${String(step).padStart(8, '0')}`;
}

/** The step of a folder's name, or undefined. */
export function stepOfFolder(name: string): number | undefined {
  const digits = /^step-(\d{8,})$/.exec(name)?.[1];
  return digits === undefined ? undefined : Number(digits);
}

/** What is kept of a parameter: its float32 main value, and Adam's moments. */
export const TENSOR_KINDS = ['weight', 'exp_avg', 'exp_avg_sq'] as const;
/** Those of {@link TENSOR_KINDS} that a frozen parameter has not. */
export const MOMENTS = ['exp_avg', 'exp_avg_sq'] as const;
export type TensorKind = (typeof TENSOR_KINDS)[number];

/** Name of a parameter's tensor in the checkpoint: the weight has the parameter's own (Hugging Face) name. */
export function tensorName(kind: TensorKind, parameter: string): string {
  return kind === 'weight' ? parameter : `${kind}.${parameter}`;
}

export function isOptimizerTensor(name: string): boolean {
  return name.startsWith('exp_avg.') || name.startsWith('exp_avg_sq.');
}

/** Name of a piece in its shard: the tensor's own where it is whole, so that a shard of whole tensors reads as usual. */
export function pieceName(tensor: string, shape: readonly number[], piece: Rectangle): string {
  const whole = describeRectangle(wholeOf(shape));
  const part = describeRectangle(piece);
  return part === whole ? tensor : `${tensor}${part}`;
}

/** Shape under which a piece is stored. */
export function pieceShape(shape: readonly number[], { rows, cols }: Rectangle): readonly number[] {
  const whole = wholeOf(shape);
  if (rows.count === whole.rows.count && cols.count === whole.cols.count) return shape;
  return shape.length < 2 ? [cols.count] : [rows.count, cols.count];
}

export interface PieceRecord {
  readonly file: string;
  /** First row of the global tensor, and their number. A vector is one row. */
  readonly rows: readonly [number, number];
  readonly cols: readonly [number, number];
}

export interface TensorRecord {
  readonly dtype: SafetensorsDtype;
  /** Global. */
  readonly shape: readonly number[];
  readonly pieces: readonly PieceRecord[];
}

export interface CheckpointIndex {
  readonly format: typeof FORMAT;
  readonly version: number;
  readonly tensors: Readonly<Record<string, TensorRecord>>;
}

export interface CommitRecord {
  readonly format: typeof FORMAT;
  readonly version: number;
  readonly block_bytes: number;
  readonly files: Readonly<Record<string, FileRecord>>;
  /** Of `files` as JSON without spaces: the record's own checksum. */
  readonly files_crc32: string;
}

/** JSON has no NaN and no infinity: those are texts. */
export type JsonNumber = number | string;

export interface CheckpointState {
  readonly format: typeof FORMAT;
  readonly version: number;
  /** Updates that were run; 0 for imported weights. */
  readonly step: number;
  /** Samples that all replicas together have read. */
  readonly consumed_samples: number;
  /** Sizes of the model, by Hugging Face's names. */
  readonly model: Partial<ModelConfig>;
  /** What it gives for each token; absent for a language model. */
  readonly head?: HeadKind | undefined;
  /** Those that stand beside the model's products, which is frozen; absent where there are none. */
  readonly adapters?: Adapters | undefined;
  /** What the weights were trained in; null for imported ones, which are kept as they came. */
  readonly precision: Precision | null;
  /** Null for weights alone. */
  readonly optimizer: {
    readonly name: 'adamw';
    /** Updates that changed the weights: Adam's step, and the place in the learning-rate schedule. */
    readonly updates: JsonNumber;
    readonly lr: JsonNumber;
    readonly skipped_in_row: JsonNumber;
    /** The device's float64 state as it is (see STATE in the engine). */
    readonly scalars: readonly JsonNumber[];
  } | null;
  /** Seeds; weights and sample order are functions of them and of a count, so there is no other state. */
  readonly rng: { readonly seed: number; readonly data_seed: number } | null;
  /** Who wrote it; any layout can read it. */
  readonly layout: Readonly<Record<string, number | boolean>> | null;
  /** What decides the bits beside the configuration. */
  readonly versions: Readonly<Record<string, string>>;
  /** Resolved configuration of the run. */
  readonly config: RunConfig | null;
  /** Whose the checkpoint is: a run that goes on in the folder inherits it. Absent from what older versions wrote. */
  readonly lineage?: string | undefined;
  /** What the samples came from; null where the dataset does not tell, absent from what older versions wrote. */
  readonly data?: DataFingerprint | null | undefined;
}

export function toJsonNumber(x: number): JsonNumber {
  if (Object.is(x, -0)) return '-0';
  return Number.isFinite(x) ? x : String(x);
}

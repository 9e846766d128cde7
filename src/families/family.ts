/** Widths that matrices and norms have: the residual stream, all query heads, all key heads, one head, the SwiGLU. */
export type Width = 'hidden' | 'q' | 'kv' | 'head' | 'ffn';

/** A product of a decoder layer: one matrix, or several that one product computes. */
export interface LinearSpec {
  readonly kind: 'linear';
  /** The part that it plays, by which the model's blocks ask for it. */
  readonly block: LinearBlock;
  /** Each named as Hugging Face names it within the layer, in the order of their rows. */
  readonly parts: readonly { readonly name: string; readonly outputs: Width }[];
  readonly inputs: Width;
  /** The side that tensor parallelism cuts. */
  readonly cut: 'outputs' | 'inputs';
  /** Whether each part adds a vector to its outputs. Only where the outputs are cut: each rank has its own part. */
  readonly bias: boolean;
}

export type LinearBlock = 'qkv' | 'o' | 'gate+up' | 'down';

/** An RMSNorm of a decoder layer: of the residual stream, or of every head of q or k. */
export interface NormSpec {
  readonly kind: 'norm';
  readonly block: NormBlock;
  readonly name: string;
  readonly width: Width;
}

export type NormBlock = 'attention' | 'q' | 'k' | 'mlp';

/** What a config.json may say under a key: anything else is refused for the reason given. */
export interface HfRule {
  readonly key: string;
  readonly plain: readonly unknown[];
  readonly why: string;
}

/**
 * A family of models, as data: everything that differs between families, and nothing else. Parameters, work, cuts,
 * memory, import and export are folds over it.
 */
export interface Family<Name extends string = string> {
  /** As `model.family` takes it, and Hugging Face's `model_type`. */
  readonly name: Name;
  readonly title: string;
  readonly architecture: string;
  /** A decoder layer's modules in forward order. */
  readonly layer: readonly (LinearSpec | NormSpec)[];
  readonly hf: {
    /** What transformers takes where a config.json does not say; a key that is not here must be there. */
    readonly defaults: Readonly<Record<string, unknown>>;
    readonly rules: readonly HfRule[];
    /** Layers may have a sliding window: `use_sliding_window`, `max_window_layers`, `layer_types`. */
    readonly slidingWindow: boolean;
    /** What a new config.json says beside architecture and sizes. */
    readonly written: Readonly<Record<string, unknown>>;
  };
}

import { MbridgeError } from '../../base/errors.js';
import { didYouMean } from '../../base/nearest.js';
import { isPlainObject } from '../../base/plain-object.js';
import type { Tokenizer } from '../tokenizer.js';
import { renderWithSpans } from './assistant-spans.js';
import { ChatTemplate, type ChatMessage, type ChatOptions } from './chat-template.js';
import { openEngine, surroundingsOf, type Surroundings, type TokenizerEngine } from './engine.js';
import { spanMask, tokenBytes, type TokenBytes } from './token-bytes.js';
import { namedTokens, readTokenizerFolder, vocabularySize, type TokenizerFolder } from './tokenizer-folder.js';

/** A conversation as a model is trained on it. */
export interface ChatTokens {
  readonly ids: Int32Array;
  /** As long as `ids`: 1 where the assistant speaks. */
  readonly assistant: Uint8Array;
}

/**
 * The tokenizer of a Hugging Face folder (`tokenizer.json`, `tokenizer_config.json`): the ids that transformers gives.
 * Loading takes up to a second and some 100 MB: one a process, and none in a rank that trains.
 */
export class HuggingFaceTokenizer implements Tokenizer {
  readonly name: string;
  readonly vocabSize: number;
  readonly identity: string;
  readonly #folder: TokenizerFolder;
  readonly #engine: TokenizerEngine;
  readonly #around: Surroundings;
  readonly #eod: number | undefined;
  /** Of tokenizer_config.json: bos_token, eos_token and so on. */
  readonly #names: Readonly<Record<string, string>>;
  /** Made when it is first asked for: its work grows with the vocabulary. */
  #runs: { readonly known: TokenBytes | undefined } | undefined;
  readonly #templates = new Map<string, ChatTemplate>();

  private constructor(folder: TokenizerFolder, eod: string | undefined) {
    this.name = folder.path;
    this.identity = folder.identity;
    this.#folder = folder;
    this.#engine = openEngine(folder);
    this.#around = surroundingsOf(folder);
    this.vocabSize = vocabularySize(folder);
    this.#names = namedTokens(folder.config);
    const content = eod ?? this.#names['eos_token'];
    this.#eod = content === undefined ? undefined : this.tokenId(content);
    if (eod !== undefined && this.#eod === undefined) throw this.#noToken(eod);
  }

  /**
   * @param options.eod content of the token between documents; default: eos_token of tokenizer_config.json
   * @throws MbridgeError MB_TOKENIZER_FILE (exit 7), MB_TOKENIZER_UNSUPPORTED, MB_TOKENIZER_EOD (exit 3)
   */
  static open(path: string, options: { readonly eod?: string | undefined } = {}): HuggingFaceTokenizer {
    return new HuggingFaceTokenizer(readTokenizerFolder(path), options.eod);
  }

  get endOfDocument(): number {
    if (this.#eod === undefined) throw this.#noToken(this.#names['eos_token']);
    return this.#eod;
  }

  /** The ids of a text, as transformers' `tokenizer(text)`; without the tokens around it as with add_special_tokens=False. */
  encode(text: string, options: { readonly specialTokens?: boolean } = {}): Int32Array {
    const ids = this.#engine.encode(text);
    const { before, after } = this.#around;
    if (options.specialTokens === false || before.length + after.length === 0) return ids;
    const all = new Int32Array(before.length + ids.length + after.length);
    all.set(before);
    all.set(ids, before.length);
    all.set(after, before.length + ids.length);
    return all;
  }

  /** Which engine gives the ids: `native` or `javascript`. */
  get engine(): string {
    return this.#engine.name;
  }

  /** Of a byte-level tokenizer; special tokens are no text. */
  get tokenBytes(): ArrayLike<number> | undefined {
    const bytes = this.#runsOfBytes()?.bytes.slice();
    for (const { id, special } of this.#folder.tokenizer.added_tokens) if (special && bytes) bytes[id] = 0;
    return bytes;
  }

  count(text: string): number {
    return this.encode(text).length;
  }

  decode(tokens: ArrayLike<number>, options: { readonly skipSpecialTokens?: boolean } = {}): string {
    return this.#engine.decode(Array.from(tokens), options.skipSpecialTokens ?? false);
  }

  /** The id of a token by its content, undefined where the vocabulary does not have it. */
  tokenId(content: string): number | undefined {
    const added = this.#folder.tokenizer.added_tokens.find((token) => token.content === content);
    if (added !== undefined) return added.id;
    const { vocab } = this.#folder.tokenizer.model;
    if (Array.isArray(vocab)) {
      const at = vocab.findIndex((entry: unknown) => Array.isArray(entry) && entry[0] === content);
      return at < 0 ? undefined : at;
    }
    return isPlainObject(vocab) && Object.hasOwn(vocab, content) ? (vocab[content] as number) : undefined;
  }

  /**
   * A conversation as text, as transformers' `apply_chat_template(..., tokenize=False)` writes it.
   * @throws MbridgeError MB_CHAT_TEMPLATE (exit 7)
   */
  applyChatTemplate(messages: readonly ChatMessage[], options: ChatOptions = {}): string {
    return this.#template(options).render(messages, options).text;
  }

  /**
   * A conversation as ids, with a mask of what the assistant says.
   * @throws MbridgeError MB_CHAT_TEMPLATE, MB_CHAT_SPANS (exit 7)
   */
  chatTokens(messages: readonly ChatMessage[], options: ChatOptions = {}): ChatTokens {
    const special = this.#folder.tokenizer.added_tokens.filter((token) => token.special);
    const names = special.map(({ content }) => content);
    const { text, spans } = renderWithSpans(this.#template(options), messages, options, names);
    const ids = this.#engine.encode(text);
    const bytes = this.#runsOfBytes();
    const assistant = bytes === undefined ? undefined : spanMask(ids, text, spans, bytes);
    if (assistant === undefined) {
      const found = `${this.name}: the tokens of a text do not say where in it they stand`;
      throw new MbridgeError('io', 'MB_CHAT_SPANS', found, { hint: 'use a byte-level tokenizer' });
    }
    return { ids, assistant };
  }

  /** @throws MbridgeError MB_CHAT_TEMPLATE (exit 7) where there is none, or it is none */
  requireChatTemplate(): void {
    this.#template({});
  }

  #template(options: ChatOptions): ChatTemplate {
    const { chatTemplates, path } = this.#folder;
    const withTools = (options.tools ?? null) === null ? undefined : chatTemplates.get('tool_use');
    const text = withTools ?? chatTemplates.get('default');
    if (text === undefined) {
      throw new MbridgeError('io', 'MB_CHAT_TEMPLATE', `${path}: the tokenizer has no chat template`, {
        hint: 'put a chat_template.jinja in the folder, such as that of the model tuned for conversations',
      });
    }
    const known = this.#templates.get(text);
    if (known !== undefined) return known;
    const template = new ChatTemplate(text, { where: path, names: this.#names });
    this.#templates.set(text, template);
    return template;
  }

  #runsOfBytes(): TokenBytes | undefined {
    this.#runs ??= { known: tokenBytes(this.#folder, this.vocabSize) };
    return this.#runs.known;
  }

  #noToken(content: string | undefined): MbridgeError {
    const known = this.#folder.tokenizer.added_tokens.map((token) => token.content);
    const near = content === undefined ? '' : didYouMean(content, known);
    const found =
      content === undefined ? 'names no eos_token to stand between documents' : `has no token ${content}${near}`;
    return new MbridgeError('config', 'MB_TOKENIZER_EOD', `${this.name}: the tokenizer ${found}`, {
      hint: `name the token that ends a document with --eod; added tokens: ${known.slice(0, 8).join(' ') || 'none'}`,
    });
  }
}

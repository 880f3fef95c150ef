import { copyFile, mkdir, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { Tokenizer as Library } from '@huggingface/tokenizers';
import { companionFiles } from '../pretrained/companions.js';
import { decodeBytesAsPython } from './byte-fallback.js';
import { ChatTemplates } from './chat-template.js';
import { TokenizerError } from './errors.js';
import { padRows } from './pad.js';
import type {
  ChatMessage,
  ChatTemplateOptions,
  DecodeOptions,
  EncodeBatchOptions,
  EncodeOptions,
  TokenBatch,
  Tokenizer,
} from './tokenizer.js';
import { withWordSplits } from './word-splits.js';

type JsonObject = Readonly<Record<string, unknown>>;

export interface TokenizerFiles {
  /** tokenizer.json: vocabulary, merges, and what is done to text before and after. */
  readonly tokenizer: JsonObject;
  /** tokenizer_config.json. */
  readonly config: JsonObject;
  /** special_tokens_map.json, which older checkpoints have: counts where the config says nothing. */
  readonly specialTokens?: JsonObject | undefined;
  /** Templates of files: they count before those of the config. */
  readonly chatTemplates?: ReadonlyMap<string, string> | undefined;
  /** Where they came from. */
  readonly directory: string;
}

const CONFIG = 'tokenizer_config.json';
/** Lengths beyond this are a way of older libraries to say: none. */
const NO_LENGTH = 1e12;

/** A tokenizer of a tokenizer.json file. */
export class FastTokenizer implements Tokenizer {
  readonly vocabSize: number;
  readonly padTokenId: number | undefined;
  readonly bosTokenId: number | undefined;
  readonly eosTokenId: number | undefined;
  readonly unkTokenId: number | undefined;
  readonly modelMaxLength: number;
  readonly paddingSide: 'left' | 'right';
  readonly #library: Library;
  readonly #templates: ChatTemplates;
  readonly #cleansUp: boolean;
  readonly #config: JsonObject;
  readonly #directory: string;

  /** @throws TokenizerError for a tokenizer.json that the library can't use */
  constructor({ tokenizer, config, specialTokens = {}, chatTemplates = new Map(), directory }: TokenizerFiles) {
    this.#config = config;
    this.#directory = directory;
    try {
      this.#library = new Library(withWordSplits(tokenizer), config);
      decodeBytesAsPython(this.#library);
    } catch (cause) {
      throw new TokenizerError('ERR_TOKENIZER', `tokenizer.json can't be used: ${(cause as Error).message}`, { cause });
    }
    const tokens = specialTokensOf(config, specialTokens);
    const idOf = (kind: string) => (tokens[kind] === undefined ? undefined : this.#library.token_to_id(tokens[kind]));
    this.padTokenId = idOf('pad_token');
    this.bosTokenId = idOf('bos_token');
    this.eosTokenId = idOf('eos_token');
    this.unkTokenId = idOf('unk_token');
    this.vocabSize = [...this.#library.get_vocab().values()].reduce((size, id) => Math.max(size, id + 1), 0);
    const { model_max_length: length, padding_side: side, clean_up_tokenization_spaces: cleansUp } = config;
    this.modelMaxLength = typeof length === 'number' && length < NO_LENGTH ? length : Number.POSITIVE_INFINITY;
    this.paddingSide = side === 'left' ? 'left' : 'right';
    // Made for WordPiece: of what byte pairs encode it would take spaces away, so their configs' word for it is not meant.
    this.#cleansUp = cleansUp === true && (tokenizer.model as { type?: string } | undefined)?.type !== 'BPE';
    this.#templates = new ChatTemplates(new Map([...templatesOf(config.chat_template), ...chatTemplates]), tokens);
  }

  encode(text: string, { addSpecialTokens = true, truncation = false, maxLength = this.modelMaxLength }: EncodeOptions = {}): number[] {
    const { ids } = this.#library.encode(text, { add_special_tokens: addSpecialTokens });
    return truncation && ids.length > maxLength ? ids.slice(0, maxLength) : ids;
  }

  encodeBatch(texts: readonly string[], options: EncodeBatchOptions = {}): TokenBatch {
    const { padding = 'longest', paddingSide = this.paddingSide, padToMultipleOf = 1, maxLength = this.modelMaxLength } = options;
    const rows = texts.map((text) => this.encode(text, options));
    const longest = Math.max(0, ...rows.map(({ length }) => length));
    if (padding === 'maxLength' && !Number.isFinite(maxLength))
      throw new TokenizerError('ERR_TOKENIZER', "padding 'maxLength' needs maxLength: the tokenizer has no model_max_length");
    const wanted = padding === 'maxLength' ? Math.max(longest, maxLength) : longest;
    const length = padding === false ? longest : Math.ceil(wanted / padToMultipleOf) * padToMultipleOf;
    const isPadded = rows.some((row) => row.length < length);
    if (isPadded && padding === false) {
      const lengths = rows.map((row) => row.length).join(', ');
      throw new TokenizerError('ERR_TOKENIZER', `texts of ${lengths} tokens do not form rows of one length; let them be padded`);
    }
    if (isPadded && this.padTokenId === undefined) throw this.#noPadToken();
    return padRows(rows, length, paddingSide, this.padTokenId ?? 0);
  }

  decode(ids: Iterable<number>, { skipSpecialTokens = false }: DecodeOptions = {}): string {
    const list = [...ids];
    if (list.length === 0) return '';
    return this.#library.decode(list, { skip_special_tokens: skipSpecialTokens, clean_up_tokenization_spaces: this.#cleansUp });
  }

  tokenToId(token: string): number | undefined {
    return this.#library.token_to_id(token);
  }

  idToToken(id: number): string | undefined {
    return this.#library.id_to_token(id);
  }

  async savePretrained(directory: string): Promise<void> {
    await mkdir(directory, { recursive: true });
    for (const { name, path } of await companionFiles(this.#directory)) {
      if (name === 'generation_config.json' || name === CONFIG || resolve(path) === resolve(directory, name)) continue;
      await mkdir(dirname(join(directory, name)), { recursive: true });
      await copyFile(path, join(directory, name));
    }
    await writeFile(join(directory, CONFIG), `${JSON.stringify(this.#config, null, 2)}\n`);
  }

  #noPadToken(): TokenizerError {
    const eos = this.eosTokenId === undefined ? 'a token of its vocabulary' : JSON.stringify(this.idToToken(this.eosTokenId));
    const way = `load it with AutoTokenizer.fromPretrained(path, { padToken: ${eos} })`;
    const text = `texts of several lengths need padding, and this tokenizer has no pad token: ${way}, for padding is masked and never looked at`;
    return new TokenizerError('ERR_NO_PAD_TOKEN', text);
  }

  applyChatTemplate(messages: readonly ChatMessage[], options: ChatTemplateOptions = {}): string {
    return this.#templates.render(messages, options);
  }
}

/** 'bos_token' and its like, as text. */
function specialTokensOf(config: JsonObject, older: JsonObject): Record<string, string> {
  const found: Record<string, string> = {};
  for (const source of [older, config]) {
    for (const [key, value] of Object.entries(source)) {
      if (!key.endsWith('_token')) continue;
      const text = typeof value === 'object' && value !== null ? (value as { content?: unknown }).content : value;
      if (typeof text === 'string') found[key] = text;
    }
  }
  return found;
}

/** One template, or a list of named ones. */
function templatesOf(value: unknown): [string, string][] {
  if (typeof value === 'string') return [['default', value]];
  if (!Array.isArray(value)) return [];
  return (value as { name: string; template: string }[]).map(({ name, template }) => [name, template]);
}

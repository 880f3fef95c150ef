/** Token ids of several texts in rows of one length: i32 [texts, tokens], as the engine takes them. */
export interface TokenRows {
  readonly data: Int32Array;
  readonly shape: readonly [texts: number, tokens: number];
}

/** Texts as rows of tokens, padded to one length. */
export interface TokenBatch {
  readonly inputIds: TokenRows;
  /** 1 for tokens, 0 for padding. */
  readonly attentionMask: TokenRows;
  /** Of each token in its own text, from 0 on, however it is padded; 0 for padding. */
  readonly positionIds: TokenRows;
}

export interface EncodeOptions {
  /** Add what the tokenizer puts around a text, such as a token that begins it. Default true. */
  readonly addSpecialTokens?: boolean;
  /** Keep no more than `maxLength` tokens, the first ones. Default false; a number says true and the length. */
  readonly truncation?: boolean;
  /** Tokens at most. Default: `modelMaxLength`. */
  readonly maxLength?: number;
}

export interface EncodeBatchOptions extends EncodeOptions {
  /** 'longest', the default, pads to the longest of the texts; 'maxLength' to `maxLength`; false: texts must have equal lengths. */
  readonly padding?: 'longest' | 'maxLength' | false;
  /** Default: the tokenizer's own. Generation continues what ends a row, so it wants 'left'. */
  readonly paddingSide?: 'left' | 'right';
  /** Rows become a multiple of this long. */
  readonly padToMultipleOf?: number;
}

export interface DecodeOptions {
  /** Leave out tokens such as those that begin and end a text. Default false. */
  readonly skipSpecialTokens?: boolean;
}

/** What is said to a chat model, by whom. Templates may look at more than this. */
export interface ChatMessage {
  readonly role: string;
  readonly content: unknown;
  readonly [key: string]: unknown;
}

export interface ChatTemplateOptions {
  /** End with what makes the model answer. Default false. */
  readonly addGenerationPrompt?: boolean;
  /** Which of several templates, by name. Default: 'tool_use' where there are tools and such a template, else 'default'. */
  readonly chatTemplate?: string;
  /** JSON schemas of functions that the model may call. */
  readonly tools?: readonly object[];
  readonly documents?: readonly object[];
  /** More variables for the template. */
  readonly variables?: Readonly<Record<string, unknown>>;
}

/** What turns text into token ids and back. */
export interface Tokenizer {
  /** Ids that it may give, those of added tokens included: the least that a model's vocabulary must have. */
  readonly vocabSize: number;
  readonly padTokenId: number | undefined;
  readonly bosTokenId: number | undefined;
  readonly eosTokenId: number | undefined;
  readonly unkTokenId: number | undefined;
  /** Tokens that its model was made for; Infinity where nobody said. */
  readonly modelMaxLength: number;
  readonly paddingSide: 'left' | 'right';
  encode(text: string, options?: EncodeOptions): number[];
  /** @throws TokenizerError where texts are to be padded and there is no token for that */
  encodeBatch(texts: readonly string[], options?: EncodeBatchOptions): TokenBatch;
  decode(ids: Iterable<number>, options?: DecodeOptions): string;
  tokenToId(token: string): number | undefined;
  idToToken(id: number): string | undefined;
  /** A conversation as the text that its model was trained on. @throws TokenizerError where there is no template, or it refuses the messages */
  applyChatTemplate(messages: readonly ChatMessage[], options?: ChatTemplateOptions): string;
  /** Writes its files, with what it was told to do otherwise, so that it is loaded from there as it is. */
  savePretrained(directory: string): Promise<void>;
}

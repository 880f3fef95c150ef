import type { Settings } from './settings.js';
import { TextStream } from './text-stream.js';

/** Why a sequence ended: a token that ends it, a stop string, or as many tokens as it may have. */
export type FinishReason = 'eos' | 'stop' | 'length';

/** What a model has written after a prompt. */
export interface Generation {
  /** The prompt's place among those given. */
  readonly prompt: number;
  /** All new tokens, with the one that ended it. */
  readonly tokens: readonly number[];
  /** Of the new tokens, up to a stop string; `undefined` without a tokenizer. */
  readonly text: string | undefined;
  readonly finishReason: FinishReason;
}

/** A sequence while it grows. */
export class Sequence {
  readonly tokens: number[] = [];
  readonly #stream: TextStream | undefined;
  #text = '';
  #piece = '';
  #finishReason: FinishReason | undefined;

  constructor(
    /** The prompt's place among those given, and its tokens. */
    readonly prompt: { readonly index: number; readonly tokens: readonly number[] },
    /** New tokens that it may have. */
    readonly limit: number,
    readonly settings: Settings,
  ) {
    const { tokenizer, stop, skipSpecialTokens } = settings;
    this.#stream = tokenizer && new TextStream({ tokenizer, prompt: prompt.tokens, stop, skipSpecialTokens });
  }

  get isFinished(): boolean {
    return this.#finishReason !== undefined;
  }

  /** Takes the next token, unless it is finished. */
  push(token: number): void {
    if (this.isFinished) return;
    this.tokens.push(token);
    this.#stream?.push(token);
    if (this.settings.eos.has(token)) this.#finishReason = 'eos';
    else if (this.#stream?.stopped) this.#finishReason = 'stop';
    else if (this.tokens.length >= this.limit) this.#finishReason = 'length';
    if (this.isFinished) this.#stream?.end();
    // What was held back at the end may have been a stop string.
    if (this.#finishReason === 'length' && this.#stream?.stopped) this.#finishReason = 'stop';
    const piece = this.#stream?.take() ?? '';
    this.#text += piece;
    this.#piece += piece;
  }

  /** Text that has come since the last call. */
  takePiece(): string {
    const piece = this.#piece;
    this.#piece = '';
    return piece;
  }

  result(): Generation {
    const text = this.#stream ? this.#text : undefined;
    return { prompt: this.prompt.index, tokens: this.tokens, text, finishReason: this.#finishReason! };
  }
}

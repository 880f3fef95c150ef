import type { Tokenizer } from '../tokenizer/tokenizer.js';

export interface TextStreamOptions {
  readonly tokenizer: Pick<Tokenizer, 'decode'>;
  /** The tokens before: what decoders do at the beginning of a text, they do not do in its middle. */
  readonly prompt: readonly number[];
  readonly stop: readonly string[];
  readonly skipSpecialTokens: boolean;
}

/** Tokens of the prompt that are decoded beside the first new ones. */
const CONTEXT = 6;
/** What decoders put in the place of bytes that are no character, or not yet. */
const REPLACEMENT = '\uFFFD';

/**
 * The text of tokens that come one after the other, in pieces. A piece never ends within a character of several tokens, nor within what may become
 * a stop string; the text ends before the first of these.
 */
export class TextStream {
  readonly #options: TextStreamOptions;
  /** Tokens whose text is not settled, after some whose text is: those show how the others join on. */
  readonly #ids: number[];
  #settled: number;
  #before: string;
  /** Text that nobody has taken. */
  #held = '';
  #stopped = false;
  #ended = false;

  constructor(options: TextStreamOptions) {
    this.#options = options;
    this.#ids = options.prompt.slice(-CONTEXT);
    this.#settled = this.#ids.length;
    this.#before = this.#decode(this.#ids);
  }

  /** Whether a stop string has come. */
  get stopped(): boolean {
    return this.#stopped;
  }

  push(token: number): void {
    if (this.#stopped) return;
    this.#ids.push(token);
    const now = this.#decode(this.#ids);
    if (!now.endsWith(REPLACEMENT)) this.#settle(now);
  }

  /** No token comes any more: what was held back is part of the text. */
  end(): void {
    if (this.#stopped) return;
    if (this.#settled < this.#ids.length) this.#settle(this.#decode(this.#ids));
    this.#ended = true;
  }

  /** What can be shown and has not been taken. */
  take(): string {
    const keep = this.#stopped || this.#ended ? 0 : this.#undecided();
    const piece = this.#held.slice(0, this.#held.length - keep);
    this.#held = this.#held.slice(piece.length);
    return piece;
  }

  #settle(now: string): void {
    this.#held += now.slice(commonPrefix(this.#before, now));
    this.#ids.splice(0, this.#settled);
    this.#settled = this.#ids.length;
    this.#before = this.#decode(this.#ids);
    this.#look();
  }

  #look(): void {
    const places = this.#options.stop.map((stop) => this.#held.indexOf(stop)).filter((at) => at >= 0);
    if (places.length === 0) return;
    this.#held = this.#held.slice(0, Math.min(...places));
    this.#stopped = true;
  }

  /** Characters at the end that a stop string may begin with. */
  #undecided(): number {
    let most = 0;
    for (const stop of this.#options.stop) {
      for (let length = Math.min(stop.length - 1, this.#held.length); length > most; length--)
        if (this.#held.endsWith(stop.slice(0, length))) most = length;
    }
    return most;
  }

  #decode(ids: readonly number[]): string {
    return this.#options.tokenizer.decode(ids, { skipSpecialTokens: this.#options.skipSpecialTokens });
  }
}

function commonPrefix(a: string, b: string): number {
  let at = 0;
  while (at < a.length && a[at] === b[at]) at++;
  return at;
}

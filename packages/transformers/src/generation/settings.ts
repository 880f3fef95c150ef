import { DeepSpeedError } from '@deepspeed-ts/core';
import type { Tokenizer } from '../tokenizer/tokenizer.js';

export interface GenerateOptions {
  /** Turns prompts that are text into tokens, and tokens into text. */
  readonly tokenizer?: Tokenizer | undefined;
  /** Default: that of the model's generation_config.json, else 128. */
  readonly maxNewTokens?: number | undefined;
  /** Tokens before which nothing ends a sequence but a stop string; default 0. */
  readonly minNewTokens?: number | undefined;
  /** Draw tokens; false: always the likeliest. Default: whether any of temperature, topK, topP and minP is given, else what generation_config.json says, else false. */
  readonly doSample?: boolean | undefined;
  /** Below 1 the likely becomes likelier; 0 always takes the likeliest. */
  readonly temperature?: number | undefined;
  /** Draw among this many of the likeliest; 0: all. */
  readonly topK?: number | undefined;
  /** Draw among the likeliest that have this probability together. */
  readonly topP?: number | undefined;
  /** Draw among those that are at least this many times as likely as the likeliest. */
  readonly minP?: number | undefined;
  /** Above 1 tokens that the prompt or the sequence has already become less likely; default 1. */
  readonly repetitionPenalty?: number | undefined;
  /** Tokens that end a sequence. Default: those of generation_config.json, else the tokenizer's. */
  readonly eosTokenId?: number | readonly number[] | undefined;
  /** Texts that end a sequence, which does not have them. They need a tokenizer. */
  readonly stop?: string | readonly string[] | undefined;
  /** Leave tokens such as those that end a text out of it; default true. */
  readonly skipSpecialTokens?: boolean | undefined;
  /** Sequences for each prompt; default 1. They differ only where tokens are drawn. */
  readonly numReturnSequences?: number | undefined;
  /** What is drawn depends on the seed, the number of the row and the place in its sequence, and on nothing else. Default 0. */
  readonly seed?: number | undefined;
  /** The number of the first row: what ranks or batches that share a seed set apart. Default 0. */
  readonly firstRow?: number | undefined;
  /** Stops it: `generate` rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

/** Options with their defaults filled in, checked. */
export interface Settings {
  readonly tokenizer: Tokenizer | undefined;
  readonly maxNewTokens: number;
  readonly minNewTokens: number;
  /** `undefined`: the likeliest. */
  readonly sampling: { readonly temperature: number; readonly topK: number; readonly topP: number; readonly minP: number } | undefined;
  readonly repetitionPenalty: number;
  readonly eos: ReadonlySet<number>;
  readonly stop: readonly string[];
  readonly skipSpecialTokens: boolean;
  readonly sequences: number;
  readonly seed: number;
  readonly firstRow: number;
  readonly signal: AbortSignal | undefined;
}

/** @throws DeepSpeedError for a value that makes no sense */
export function settingsOf(options: GenerateOptions, defaults: Readonly<Record<string, unknown>> = {}): Settings {
  const stored = <T>(key: string): T | undefined => (defaults[key] ?? undefined) as T | undefined;
  const { tokenizer, signal } = options;
  const given = (['temperature', 'topK', 'topP', 'minP'] as const).some((name) => options[name] !== undefined);
  const temperature = checked('temperature', options.temperature ?? stored('temperature') ?? 1, (x) => x >= 0, 'a number of at least 0');
  const draws = temperature > 0 && (options.doSample ?? (given || stored<boolean>('do_sample') || false));
  const share = (x: number) => x >= 0 && x <= 1;
  const sampling = {
    temperature,
    topK: checked('topK', options.topK ?? stored('top_k') ?? 0, isCount, 'a whole number of at least 0'),
    topP: checked('topP', options.topP ?? stored('top_p') ?? 1, share, 'a number from 0 to 1'),
    minP: checked('minP', options.minP ?? stored('min_p') ?? 0, share, 'a number from 0 to 1'),
  };
  const stop = typeof options.stop === 'string' ? [options.stop] : (options.stop ?? []);
  if (stop.length > 0 && !tokenizer) throw optionError('stop', 'a tokenizer beside it, which makes text of tokens', 'none');
  if (stop.includes('')) throw optionError('stop', 'texts that are not empty', "''");
  const eos = options.eosTokenId ?? stored<number | number[]>('eos_token_id') ?? tokenizer?.eosTokenId ?? [];
  return {
    tokenizer,
    signal,
    maxNewTokens: checked(
      'maxNewTokens',
      options.maxNewTokens ?? stored('max_new_tokens') ?? 128,
      (x) => isCount(x) && x > 0,
      'a positive whole number',
    ),
    minNewTokens: checked('minNewTokens', options.minNewTokens ?? stored('min_new_tokens') ?? 0, isCount, 'a whole number of at least 0'),
    sampling: draws ? sampling : undefined,
    repetitionPenalty: checked(
      'repetitionPenalty',
      options.repetitionPenalty ?? stored('repetition_penalty') ?? 1,
      (x) => x > 0 && Number.isFinite(x),
      'a positive number',
    ),
    eos: new Set([eos].flat()),
    stop,
    skipSpecialTokens: options.skipSpecialTokens ?? true,
    sequences: checked('numReturnSequences', options.numReturnSequences ?? 1, (x) => isCount(x) && x > 0, 'a positive whole number'),
    seed: checked('seed', options.seed ?? 0, (x) => Number.isSafeInteger(x) && x >= 0, 'a whole number of at least 0'),
    firstRow: checked('firstRow', options.firstRow ?? 0, isCount, 'a whole number of at least 0'),
  };
}

function isCount(x: number): boolean {
  return Number.isInteger(x) && x >= 0;
}

function checked(name: string, value: number, fits: (value: number) => boolean, expected: string): number {
  if (typeof value !== 'number' || !fits(value)) throw optionError(name, expected, String(value));
  return value;
}

export function optionError(name: string, expected: string, got: string): DeepSpeedError {
  return new DeepSpeedError('ERR_GENERATE', `[generate] ${name}: expected ${expected}, got ${got}`);
}

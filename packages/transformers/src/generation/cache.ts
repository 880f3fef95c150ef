import {
  type AttentionOptions,
  appendToCache,
  attention,
  cachedAttention,
  type Device,
  type DType,
  empty,
  type KeyValueCache,
  type Tensor,
  tensor,
  unscoped,
} from '@deepspeed-ts/core';

export interface CacheOptions {
  readonly device: Device;
  /** Of keys and values: that of the weights. */
  readonly dtype: DType;
  readonly layers: number;
  readonly kvHeads: number;
  readonly headDim: number;
  /** Tokens of each prompt. Prompts end at the same slot: shorter ones are padded on the left. */
  readonly lengths: readonly number[];
  /** Sequences that go on from each prompt; default 1. */
  readonly sequences?: number;
  /** Tokens that a row may have, padding included. */
  readonly capacity: number;
  /** Tokens that a sequence may have: positions beyond are the last one. Default: any number. */
  readonly maxTokens?: number;
}

/**
 * Keys and values of sequences that a decoder goes on with, for each of its layers. The first tokens it is given are the prompts, a row each;
 * after them each of its sequences has a row. Its owner disposes it.
 */
export class DecoderCache {
  readonly capacity: number;
  /** By prompt. */
  readonly #starts: readonly number[];
  readonly #sequences: number;
  readonly #layers: KeyValueCache[] = [];
  /** i32 [sequences in all]: the slots where they begin. */
  readonly #startSlots: Tensor;
  /** i32 [capacity, sequences in all]: of each slot in its sequence; 0 before it begins. */
  readonly #positions: Tensor;
  #length = 0;

  constructor({ device, dtype, layers, kvHeads, headDim, lengths, sequences = 1, capacity, maxTokens = capacity }: CacheOptions) {
    const longest = Math.max(...lengths);
    this.capacity = capacity;
    this.#starts = lengths.map((length) => longest - length);
    this.#sequences = sequences;
    const starts = this.#starts.flatMap((start) => Array<number>(sequences).fill(start));
    const rows = starts.length;
    const made: Tensor[] = [];
    const own = (make: () => Tensor) => {
      made.push(unscoped(make));
      return made.at(-1)!;
    };
    try {
      this.#startSlots = own(() => tensor(device, starts, 'i32', [rows], { kind: 'data' }));
      const position = (slot: number, row: number) => Math.min(Math.max(0, slot - starts[row]!), maxTokens - 1);
      const positions = Int32Array.from({ length: capacity * rows }, (_, i) => position(Math.floor(i / rows), i % rows));
      this.#positions = own(() => tensor(device, positions, 'i32', [capacity, rows], { kind: 'data' }));
      const slots = () => own(() => empty(device, [rows, kvHeads, capacity, headDim], dtype));
      for (let layer = 0; layer < layers; layer++) this.#layers.push({ keys: slots(), values: slots() });
    } catch (error) {
      for (const each of made) each.dispose();
      throw error;
    }
  }

  /** Slots that are taken. */
  get length(): number {
    return this.#length;
  }

  /** Takes `tokens` more slots, once all layers have filled them. */
  advance(tokens: number): void {
    this.#length += tokens;
  }

  /** Gives up slots: what comes next overwrites them. */
  rewind(length: number): void {
    this.#length = Math.min(length, this.#length);
  }

  /** Where the next tokens stand, i32 [rows, tokens], for tables of positions. The caller's scope frees it. */
  positions(tokens: number): Tensor {
    const [, rows = 1] = this.#positions.shape;
    if (tokens === 1 && this.#length > 0) return this.#positions.narrow(this.#length, 1).view([rows, 1]);
    const starts = this.#length === 0 ? this.#starts : this.#starts.flatMap((start) => Array<number>(this.#sequences).fill(start));
    const values = starts.flatMap((start) => Array.from({ length: tokens }, (_, t) => Math.max(0, this.#length + t - start)));
    return tensor(this.#positions.device, values, 'i32', [starts.length, tokens], { kind: 'data' });
  }

  /** Layer `index` at the present length. */
  layer(index: number): LayerCache {
    const padded = this.#starts.some((start) => start > 0);
    return new LayerCache(this.#layers[index]!, { length: this.#length, starts: this.#startSlots, padded });
  }

  dispose(): void {
    this.#startSlots.dispose();
    this.#positions.dispose();
    for (const { keys, values } of this.#layers) {
      keys.dispose();
      values.dispose();
    }
    this.#layers.length = 0;
  }
}

/** What attention of one layer needs of a cache. */
export class LayerCache {
  readonly #kept: KeyValueCache;
  readonly #state: { readonly length: number; readonly starts: Tensor; readonly padded: boolean };

  constructor(kept: KeyValueCache, state: { readonly length: number; readonly starts: Tensor; readonly padded: boolean }) {
    this.#kept = kept;
    this.#state = state;
  }

  /** Slots that are taken. */
  get length(): number {
    return this.#state.length;
  }

  /**
   * Attention of new tokens, qkv [rows, T, (heads + 2 kvHeads) headDim], to themselves and to what is kept; keeps theirs. To an empty cache they
   * attend as in training: padding is as many documents of one token.
   */
  attend(qkv: Tensor, options: AttentionOptions): Tensor {
    const { heads, kvHeads = heads, headDim, positions } = options;
    const { length, starts, padded } = this.#state;
    if (length > 0) return cachedAttention(qkv, this.#kept, { ...options, kvHeads, length, starts });
    appendToCache(qkv, this.#kept, { heads, kvHeads, headDim, length });
    return attention(qkv, { ...options, positions: padded ? positions : undefined });
  }
}

import {
  type CausalLM,
  copy,
  embedding,
  launch,
  namedParameters,
  noGrad,
  type ParameterStore,
  penalizeTokens,
  sampleToken,
  scope,
  streamOf,
  type Tensor,
  tensor,
  uniforms,
  unscoped,
} from '@deepspeed-ts/core';
import type { DecoderCache } from './cache.js';
import { agree, Progress } from './lockstep.js';
import type { Sequence } from './sequence.js';
import type { Settings } from './settings.js';

/** A language model that goes on from what it has seen. DecoderLM is one. */
export interface GenerativeLM extends CausalLM {
  /** Tokens that a sequence may have; Infinity where there is no end. */
  readonly maxTokens: number;
  /** Of generation_config.json. */
  readonly generationConfig?: Readonly<Record<string, unknown>> | undefined;
  createCache(options: SequenceSizes): DecoderCache;
  /** Scores [rows, V] of what comes after tokens i32 [rows, T], which follow those in the cache and join them. */
  step(inputIds: Tensor, cache: DecoderCache): Tensor;
}

/** What a cache is for. */
export interface SequenceSizes {
  /** Tokens of each prompt. Prompts end at the same slot: shorter ones are padded on the left. */
  readonly lengths: readonly number[];
  /** Sequences that go on from each prompt; default 1. */
  readonly sequences?: number;
  /** Tokens that a row may have, padding included. */
  readonly capacity: number;
}

/**
 * Lets sequences grow until all are finished; gives way after each token of theirs. A step is queued on the device before the host looks at the token
 * of the one before, so the device always has something to do; what is computed for nothing is one step at most.
 */
export async function* decode(model: GenerativeLM, sequences: readonly Sequence[], settings: Settings): AsyncGenerator<void> {
  const run = new Decoding(model, sequences, settings);
  const { device, together } = run.store;
  try {
    let ids = run.begin();
    for (;;) {
      const reading = ids.read();
      reading.catch(() => {}); // it is heard below, unless the next step fails first
      ids = together || run.goesOn ? run.next() : ids;
      const { data } = await reading;
      for (const [row, sequence] of sequences.entries()) sequence.push(data[row]!);
      yield;
      const own = settings.signal?.aborted ? Progress.aborted : sequences.every((s) => s.isFinished) ? Progress.done : Progress.going;
      const progress = await agree(own, device, together);
      if (progress === Progress.aborted) throw settings.signal?.reason ?? new DOMException('another rank stopped generation', 'AbortError');
      if (progress === Progress.done) return;
    }
  } finally {
    run.dispose();
  }
}

/** The state of it on the device. */
class Decoding {
  readonly store: ParameterStore;
  readonly #cache: DecoderCache;
  /** Tokens of the longest prompt. */
  readonly #longest: number;
  /** New tokens that some sequence may have. */
  readonly #limit: number;
  /** i32 [slots, rows]: the tokens so far, -1 for padding; where repetition counts. */
  readonly #history: Tensor | undefined;
  /** i32 [n, 1]. */
  readonly #eos: Tensor | undefined;
  #ids: Tensor | undefined;
  #steps = 0;

  constructor(
    readonly model: GenerativeLM,
    readonly sequences: readonly Sequence[],
    readonly settings: Settings,
  ) {
    const [parameter] = namedParameters(model).values();
    this.store = parameter!.store;
    const { device } = this.store;
    const lengths = this.#prompts.map(({ length }) => length);
    this.#longest = Math.max(...lengths);
    this.#limit = Math.max(...sequences.map(({ limit }) => limit));
    const { sequences: each, repetitionPenalty, minNewTokens, eos } = settings;
    this.#cache = model.createCache({ lengths, sequences: each, capacity: this.#longest + this.#limit - 1 });
    try {
      const ints = (values: ArrayLike<number>, shape: number[]) => unscoped(() => tensor(device, values, 'i32', shape, { kind: 'data' }));
      if (repetitionPenalty !== 1) this.#history = ints(this.#startOfHistory(), [this.#longest + this.#limit, sequences.length]);
      if (minNewTokens > 0 && eos.size > 0) this.#eos = ints([...eos], [eos.size, 1]);
    } catch (error) {
      this.dispose();
      throw error;
    }
  }

  /** Whether any sequence may have more tokens than have been asked for. */
  get goesOn(): boolean {
    return this.#steps < this.#limit;
  }

  /** The first new token of every sequence, i32 [rows]. */
  begin(): Tensor {
    return this.#step(() => {
      const prompts = this.#prompts;
      const ids = new Int32Array(prompts.length * this.#longest);
      for (const [row, prompt] of prompts.entries()) ids.set(prompt, (row + 1) * this.#longest - prompt.length);
      const { device } = this.store;
      const scores = this.model.step(tensor(device, ids, 'i32', [prompts.length, this.#longest], { kind: 'data' }), this.#cache);
      const { sequences: each } = this.settings;
      if (each === 1) return scores;
      const rows = this.sequences.map((_, row) => Math.floor(row / each));
      return embedding(scores, tensor(device, rows, 'i32', [rows.length], { kind: 'data' }));
    });
  }

  /** The token after the last one of every sequence, finished or not. Beyond the end they stand still: other ranks may go on. */
  next(): Tensor {
    return this.#step(() => {
      if (this.#cache.length === this.#cache.capacity) this.#cache.rewind(this.#cache.capacity - 1);
      return this.model.step(this.#ids!.view([this.sequences.length, 1]), this.#cache);
    });
  }

  dispose(): void {
    this.#cache.dispose();
    for (const tensor of [this.#history, this.#eos, this.#ids]) tensor?.dispose();
    this.store.releaseGathered?.();
  }

  get #prompts(): (readonly number[])[] {
    return this.sequences.filter((_, row) => row % this.settings.sequences === 0).map(({ prompt }) => prompt.tokens);
  }

  #step(scores: () => Tensor): Tensor {
    const ids = unscoped(() => noGrad(() => scope(() => this.#choose(scores()))));
    this.#ids?.dispose();
    this.#ids = ids;
    this.#steps++;
    return ids;
  }

  #choose(scores: Tensor): Tensor {
    const { repetitionPenalty, minNewTokens, sampling } = this.settings;
    const taken = this.#longest + Math.min(this.#steps, this.#limit);
    let x = scores;
    if (this.#history) x = penalizeTokens(x, this.#history.narrow(0, taken), repetitionPenalty);
    if (this.#eos && this.#steps < minNewTokens) x = penalizeTokens(x, this.#eos, Number.POSITIVE_INFINITY);
    const ids = sampleToken(x, { ...sampling, u: sampling && this.#draws() });
    if (this.#history && this.goesOn) launch(copy, [ids], [this.#history.narrow(taken, 1)], {});
    return ids;
  }

  /** f32 [rows], of each the number that belongs to its row and place. */
  #draws(): Tensor {
    const { seed, firstRow } = this.settings;
    const first = streamOf('generate') + firstRow;
    const values = this.sequences.map(({ prompt }, row) => {
      const key = { seed, step: prompt.tokens.length + this.#steps, stream: (first + row) >>> 0 };
      return uniforms(key, 0, 1)[0]!;
    });
    return tensor(this.store.device, values, 'f32', [values.length], { kind: 'data' });
  }

  #startOfHistory(): Int32Array {
    const rows = this.sequences.length;
    const history = new Int32Array((this.#longest + this.#limit) * rows).fill(-1);
    for (const [row, { prompt }] of this.sequences.entries()) {
      const start = this.#longest - prompt.tokens.length;
      for (const [i, token] of prompt.tokens.entries()) history[(start + i) * rows + row] = token;
    }
    return history;
  }
}

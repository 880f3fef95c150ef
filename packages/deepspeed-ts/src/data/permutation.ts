import { philox, splitSeed } from '@deepspeed-ts/core';

const ROUNDS = 8;

/**
 * A random permutation of 0..length-1 that is computed entry by entry and never stored, so an epoch of any length can be entered at any
 * position. It is a Feistel network over mixed radices (Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002)
 * with Philox as the round function.
 *
 * An index is split as left * right.radix + right over a grid of about sqrt(length) a side, hardly larger than `length`. A round adds a
 * random function of one half to the other and swaps them, which can be undone, so the whole is a permutation of the grid. The few grid
 * cells past the end are walked over: their image is permuted again until it falls inside.
 */
export class Permutation {
  readonly #a: number;
  readonly #b: number;
  readonly #seed: readonly [low: number, high: number];
  readonly #words = new Uint32Array(4);

  /** @param epoch - Another epoch is another permutation of the same seed. */
  constructor(
    readonly length: number,
    seed: number,
    readonly epoch: number,
  ) {
    this.#a = Math.ceil(Math.sqrt(length));
    this.#b = Math.ceil(length / this.#a);
    this.#seed = splitSeed(seed);
  }

  /** The entry at `position`, 0 <= position < length. */
  at(position: number): number {
    let index = position;
    do index = this.#permute(index);
    while (index >= this.length);
    return index;
  }

  #permute(index: number): number {
    let [a, b] = [this.#a, this.#b];
    let left = Math.floor(index / b);
    let right = index % b;
    for (let round = 0; round < ROUNDS; round++) {
      [left, right] = [right, (left + this.#random(right, round)) % a];
      [a, b] = [b, a];
    }
    return left * b + right;
  }

  #random(half: number, round: number): number {
    philox(this.#words, this.#seed[0], this.#seed[1], half, round, this.epoch, 0);
    return this.#words[0]!;
  }
}

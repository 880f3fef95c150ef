/** Rates over a stretch of steps, of all ranks together. */
export interface Rates {
  readonly samplesPerSecond: number;
  /** Where batches have token ids. */
  readonly tokensPerSecond?: number;
  /** Model FLOPs per second and device, where the model's are known. */
  readonly flopsPerDevice?: number;
  /** Seconds until the last step, where the number of steps is known. */
  readonly secondsLeft?: number;
}

/** Counts what steps take in against the clock. */
export class Throughput {
  #samples = 0;
  #tokens = 0;
  #flops = 0;
  #steps = 0;
  #since = performance.now();

  constructor(readonly ranks: number) {}

  /** A micro-batch of this rank: its tokens, and the model FLOPs of its forward and backward pass. */
  addMicroBatch(tokens: number, flops: number): void {
    this.#tokens += tokens;
    this.#flops += flops;
  }

  addStep(samples: number): void {
    this.#samples += samples;
    this.#steps++;
  }

  /** The rates since the last call. Ranks are taken to get micro-batches of equal sizes. */
  take(stepsLeft?: number): Rates {
    const now = performance.now();
    const seconds = Math.max(now - this.#since, 1e-6) / 1000;
    const steps = this.#steps;
    const rates: Rates = {
      samplesPerSecond: this.#samples / seconds,
      ...(this.#tokens > 0 && { tokensPerSecond: (this.#tokens * this.ranks) / seconds }),
      ...(this.#flops > 0 && { flopsPerDevice: this.#flops / seconds }),
      ...(stepsLeft !== undefined && steps > 0 && { secondsLeft: (stepsLeft * seconds) / steps }),
    };
    this.#samples = this.#tokens = this.#flops = this.#steps = 0;
    this.#since = now;
    return rates;
  }
}

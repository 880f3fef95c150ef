import { normals, uniforms } from '../random/philox.js';
import { type HostTensor, hostTensor } from '../tensor/host.js';

/** Repeatable random inputs for op samples. */
export class Random {
  #stream = 0;
  constructor(readonly seed = 1234) {}

  /** Standard normal f32. */
  randn(...shape: number[]): HostTensor {
    return hostTensor(shape, 'f32', normals({ seed: this.seed, stream: this.#stream++ }, 0, size(shape)));
  }

  /** Integers in [0, below). */
  ints(below: number, ...shape: number[]): HostTensor {
    const values = uniforms({ seed: this.seed, stream: this.#stream++ }, 0, size(shape));
    return hostTensor(
      shape,
      'i32',
      values.map((u) => Math.floor(u * below)),
    );
  }

  /** Uniform in [low, high). */
  uniform(low: number, high: number, ...shape: number[]): HostTensor {
    const values = uniforms({ seed: this.seed, stream: this.#stream++ }, 0, size(shape));
    return hostTensor(
      shape,
      'f32',
      values.map((u) => low + (high - low) * u),
    );
  }
}

function size(shape: number[]): number {
  return shape.reduce((a, b) => a * b, 1);
}

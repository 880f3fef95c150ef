import { launch } from '../ops/launch.js';
import { randomNormal, randomUniform } from '../ops/random-normal.js';
import { normals, type RandomKey, splitSeed, streamOf, uniforms } from '../random/philox.js';
import { fill, write } from '../tensor/create.js';
import { hostTensor } from '../tensor/host.js';
import type { Tensor } from '../tensor/tensor.js';

export interface InitialKey {
  readonly seed: number;
  readonly name: string;
}

/**
 * Initial values of a parameter: elements `start` to `start + count` of it. Counter-based, so that a rank can make its slice
 * alone and every way of sharding begins with the same bits.
 */
export interface Initializer {
  (key: InitialKey, start: number, count: number): Float64Array;
  /** The same values, made where they are kept: elements from `start` on into `target`. False: this device can't. */
  readonly into?: (target: Tensor, key: InitialKey, start: number) => boolean;
}

export const init = {
  constant: (value: number): Initializer =>
    Object.assign((_: InitialKey, __: number, count: number) => new Float64Array(count).fill(value), {
      into: (target: Tensor) => {
        fill(target, value);
        return true;
      },
    }),

  normal: (std: number, mean = 0): Initializer =>
    Object.assign((key: InitialKey, start: number, count: number) => normals(randomKey(key), start, count).map((z) => mean + std * z), {
      into: (target: Tensor, key: InitialKey, start: number) => {
        if (!target.device.backend.supports(randomNormal.name, [target.dtype])) return false;
        launch(randomNormal, [], [target], { mean, std, ...attrsOf(key, start) });
        return true;
      },
    }),

  uniform: (low: number, high: number): Initializer =>
    Object.assign(
      (key: InitialKey, start: number, count: number) => uniforms(randomKey(key), start, count).map((u) => low + (high - low) * u),
      {
        into: (target: Tensor, key: InitialKey, start: number) => {
          if (!target.device.backend.supports(randomUniform.name, [target.dtype])) return false;
          launch(randomUniform, [], [target], { low, high, ...attrsOf(key, start) });
          return true;
        },
      },
    ),
};

/** Writes a parameter's elements from `start` on into `target`: on the device where it can make them, else from the host. */
export function initialise(initializer: Initializer, key: InitialKey, target: Tensor, start: number): void {
  if (target.device.backend.dry) return;
  if (initializer.into?.(target, key, start)) return;
  write(target, hostTensor(target.shape, target.dtype, initializer(key, start, target.numel)));
}

function randomKey({ seed, name }: InitialKey): RandomKey {
  return { seed, stream: streamOf(name) };
}

function attrsOf({ seed, name }: InitialKey, start: number) {
  const [seedLow, seedHigh] = splitSeed(seed);
  return { seedLow, seedHigh, stream: streamOf(name), start };
}

import { type DType, dtypes } from '@deepspeed-ts/core';

// Kernel calls for the tests: tensors by value, without a device.

export interface Tensor {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}
export interface Case {
  readonly op: string;
  readonly inputs: readonly Tensor[];
  /** Initial values: kernels may accumulate. */
  readonly outputs: readonly Tensor[];
  readonly attrs: readonly number[];
}

/** A fixed sequence of values in (-3, 3), different for each seed. */
export function values(shape: readonly number[], seed: number): Tensor {
  const data = new Float32Array(shape.reduce((a, b) => a * b, 1));
  let state = seed * 2654435761;
  for (let i = 0; i < data.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    data[i] = (state / 2 ** 32 - 0.5) * 6;
  }
  return { dtype: 'f32', shape, bytes: new Uint8Array(data.buffer) };
}

export function integers(data: readonly number[]): Tensor {
  return { dtype: 'i32', shape: [data.length], bytes: new Uint8Array(Int32Array.from(data).buffer) };
}

export function floats({ bytes }: Tensor): Float32Array {
  return new Float32Array(bytes.slice().buffer);
}

export function zeros(dtype: DType, shape: readonly number[]): Tensor {
  return { dtype, shape, bytes: new Uint8Array(shape.reduce((a, b) => a * b, 1) * dtypes[dtype].bytes) };
}

/** The first `n` elements of flat tensors from `from` on. */
export function slice(tensor: Tensor, from: number, n: number): Tensor {
  const size = dtypes[tensor.dtype].bytes;
  return { ...tensor, shape: [n], bytes: tensor.bytes.slice(from * size, (from + n) * size) };
}

const adamAttrs = [3e-4, 0.9, 0.95, 1e-8, 0.1, 1 - 0.9 ** 3, 1 - 0.95 ** 3];
const rows = 75; // five chunks of rows in a norm's weight gradient
export const columns = 109; // no multiple of any vector length
export const n = 70_001; // more than two tasks of an elementwise kernel

const squares = (length: number): Tensor => {
  const square = floats(values([length], 4)).map((x) => x * x);
  return { dtype: 'f32', shape: [length], bytes: new Uint8Array(square.buffer) };
};

/** A step of an optimizer with a bf16 copy: `states` beside the master weights. */
function optimizer(op: string, length: number, states: readonly Tensor[], attrs: readonly number[]): Case {
  return {
    op,
    inputs: [values([length], 1), { dtype: 'f32', shape: [1], bytes: new Uint8Array(Float32Array.of(0.7).buffer) }],
    outputs: [values([length], 2), ...states, zeros('bf16', [length])],
    attrs,
  };
}

export function adam(length: number, decoupled = 1): Case {
  return optimizer('adamw', length, [values([length], 3), squares(length)], [...adamAttrs, decoupled]);
}

/** One case or more for each optimizer. */
export const optimizers: Record<string, Case> = {
  adamw: adam(n),
  adam: adam(n, 0),
  sgd: optimizer('sgd', n, [], [3e-4, 0, 0, 0, 0.1]),
  'sgd with momentum': optimizer('sgd', n, [values([n], 3)], [3e-4, 0.9, 0.2, 0, 0.1]),
  'sgd by Nesterov': optimizer('sgd', n, [values([n], 3)], [3e-4, 0.9, 0, 1, 0.1]),
  adagrad: optimizer('adagrad', n, [squares(n)], [3e-4, 1e-10, 0.1, 0.1]),
  lion: optimizer('lion', n, [values([n], 3)], [3e-4, 0.9, 0.99, 0.1]),
};

const x = values([rows, columns], 5);
const dy = values([rows, columns], 6);
const w = values([columns], 7);
const b = values([columns], 8);
const stats = (width: number) => ({
  ...values([rows, width], 9),
  bytes: new Uint8Array(floats(values([rows, width], 9)).map(Math.abs).buffer),
});

/** Kernels that use only exactly rounded operations: their bits are the same on every machine. */
export const exact: Record<string, Case> = {
  add: { op: 'add', inputs: [values([n], 1), values([n], 2)], outputs: [zeros('f32', [n])], attrs: [] },
  accumulate: { op: 'accumulate', inputs: [values([n], 1)], outputs: [values([n], 2)], attrs: [0.3] },
  cast: { op: 'cast', inputs: [values([n], 1)], outputs: [zeros('bf16', [n])], attrs: [] },
  dropout: { op: 'dropout', inputs: [values([n], 1)], outputs: [zeros('f32', [n])], attrs: [0.3, 7, 11, 13, 17] },
  sum_squares: { op: 'sum_squares', inputs: [values([n], 1)], outputs: [zeros('f32', [1])], attrs: [] },
  ...optimizers,
  layer_norm: {
    op: 'layer_norm',
    inputs: [x, w, b, dy],
    outputs: [zeros('f32', [rows, columns]), zeros('f32', [rows, 2]), zeros('f32', [rows, columns])],
    attrs: [1e-5],
  },
  layer_norm_backward: {
    op: 'layer_norm_backward',
    inputs: [dy, x, w, stats(2), dy],
    outputs: [zeros('f32', [rows, columns]), w, b],
    attrs: [1, 1],
  },
  rms_norm: { op: 'rms_norm', inputs: [x, w], outputs: [zeros('f32', [rows, columns]), zeros('f32', [rows, 1])], attrs: [1e-5] },
  rms_norm_backward: { op: 'rms_norm_backward', inputs: [dy, x, w, stats(1)], outputs: [zeros('f32', [rows, columns]), w], attrs: [1] },
  softmax_backward: { op: 'softmax_backward', inputs: [dy, x], outputs: [zeros('f32', [rows, columns])], attrs: [] },
  embedding_backward: {
    op: 'embedding_backward',
    inputs: [dy, integers(Array.from({ length: rows }, (_, i) => (i % 3 ? 4 : (i * 7) % 40)))],
    outputs: [values([40, columns], 3)],
    attrs: [1],
  },
};

/** Kernels with an exponential, which rounds twice per step where there is no FMA. */
export const exponential: Record<string, Case> = {
  gelu: { op: 'gelu', inputs: [values([n], 1)], outputs: [zeros('f32', [n])], attrs: [1] },
  'gelu by erf': { op: 'gelu', inputs: [values([n], 1)], outputs: [zeros('f32', [n])], attrs: [0] },
  gelu_backward: { op: 'gelu_backward', inputs: [values([n], 2), values([n], 1)], outputs: [zeros('f32', [n])], attrs: [1] },
  swiglu: { op: 'swiglu', inputs: [values([rows, 2 * columns], 1)], outputs: [zeros('f32', [rows, columns])], attrs: [] },
  swiglu_backward: {
    op: 'swiglu_backward',
    inputs: [dy, values([rows, 2 * columns], 1)],
    outputs: [zeros('f32', [rows, 2 * columns])],
    attrs: [],
  },
  softmax: { op: 'softmax', inputs: [x], outputs: [zeros('f32', [rows, columns])], attrs: [] },
};

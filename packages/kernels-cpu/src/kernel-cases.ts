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
  rms_norm: { op: 'rms_norm', inputs: [x, w], outputs: [zeros('f32', [rows, columns]), zeros('f32', [rows, 1])], attrs: [1e-5, 0] },
  rms_norm_backward: { op: 'rms_norm_backward', inputs: [dy, x, w, stats(1)], outputs: [zeros('f32', [rows, columns]), w], attrs: [1, 0] },
  head_norm: {
    op: 'head_norm',
    inputs: [values([rows, 6 * 45], 1), values([45], 2), values([45], 3)],
    outputs: [zeros('f32', [rows, 6 * 45]), zeros('f32', [rows, 5])],
    attrs: [4, 1, 45, 1e-6, 1],
  },
  head_norm_backward: {
    op: 'head_norm_backward',
    inputs: [values([rows, 6 * 45], 1), values([rows, 6 * 45], 2), values([45], 3), values([45], 4), stats(5)],
    outputs: [zeros('f32', [rows, 6 * 45]), values([45], 5), values([45], 6)],
    attrs: [4, 1, 45, 1e-6, 1, 1, 0],
  },
  swap_heads: { op: 'swap_heads', inputs: [values([rows, 12 * 9], 1)], outputs: [zeros('f32', [rows, 12 * 9])], attrs: [4, 3] },
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
  geglu: { op: 'geglu', inputs: [values([rows, 2 * columns], 1)], outputs: [zeros('f32', [rows, columns])], attrs: [1] },
  softcap: { op: 'softcap', inputs: [values([n], 1)], outputs: [zeros('f32', [n])], attrs: [2] },
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

const table = values([160, 12], 4);
const qkv = values([2, 150, (4 + 2 * 2) * 24], 1);
const attention = [4, 2, 24, 0.2, 1, 0.1, 7, 11, 13, 17];
const labels = integers(Array.from({ length: 70 }, (_, i) => (i % 9 ? (i * 331) % 3000 : -100)));
const head = [values([70, 40], 1), values([3000, 40], 2), labels];
/** A log-sum-exp that keeps recomputed weights small. */
const lse = (shape: readonly number[]): Tensor => {
  const data = new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(60);
  return { dtype: 'f32', shape, bytes: new Uint8Array(data.buffer) };
};

/** Matrix products: with several steps of K, cut among threads; with few rows; one thread for each; inside attention and the head. */
export const products: Record<string, Case> = {
  matmul: { op: 'matmul', inputs: [values([150, 800], 1), values([800, 97], 2)], outputs: [zeros('f32', [150, 97])], attrs: [0, 0] },
  'matmul of transposes': {
    op: 'matmul',
    inputs: [values([800, 150], 1), values([97, 800], 2)],
    outputs: [zeros('f32', [150, 97])],
    attrs: [1, 1],
  },
  'matmul in a batch': {
    op: 'matmul',
    inputs: [values([11, 33, 70], 1), values([11, 70, 65], 2)],
    outputs: [zeros('f32', [11, 33, 65])],
    attrs: [0, 0],
  },
  'matmul of few rows': {
    op: 'matmul',
    inputs: [values([5, 800], 1), values([97, 800], 2)],
    outputs: [zeros('f32', [5, 97])],
    attrs: [0, 1],
  },
  linear: {
    op: 'linear',
    inputs: [values([150, 130], 1), values([70, 130], 2), values([35, 130], 3), values([70], 4), values([35], 5)],
    outputs: [zeros('f32', [150, 105])],
    attrs: [2, 1, 0],
  },
  linear_dx: {
    op: 'linear_dx',
    inputs: [values([150, 105], 1), values([70, 130], 2), values([35, 130], 3)],
    outputs: [zeros('f32', [150, 130])],
    attrs: [2, 0, 0],
  },
  linear_add: {
    op: 'linear_add',
    inputs: [values([150, 16], 1), values([70, 16], 2)],
    outputs: [values([150, 105], 3)],
    attrs: [20],
  },
  linear_dw: {
    op: 'linear_dw',
    inputs: [values([900, 105], 1), values([900, 130], 2)],
    outputs: [values([20, 130], 3), values([15, 130], 4)],
    attrs: [2, 70, 0, 1],
  },
  column_sum: { op: 'column_sum', inputs: [values([900, 105], 1)], outputs: [zeros('f32', [50]), zeros('f32', [25])], attrs: [2, 20, 0] },
  rope: { op: 'rope', inputs: [qkv, table, table], outputs: [zeros('f32', qkv.shape)], attrs: [6, 24, 1, 3, 24] },
  attention: { op: 'attention', inputs: [qkv], outputs: [zeros('f32', [2, 150, 96]), zeros('f32', [2, 4, 150])], attrs: attention },
  attention_backward: {
    op: 'attention_backward',
    inputs: [values([2, 150, 96], 2), qkv, values([2, 150, 96], 3), lse([2, 4, 150])],
    outputs: [zeros('f32', qkv.shape)],
    attrs: attention,
  },
  linear_cross_entropy: { op: 'linear_cross_entropy', inputs: head, outputs: [zeros('f32', []), zeros('f32', [70])], attrs: [-100, 0] },
  linear_cross_entropy_backward: {
    op: 'linear_cross_entropy_backward',
    inputs: [{ ...values([1], 5), shape: [] }, ...head, lse([70])],
    outputs: [zeros('f32', [70, 40]), values([3000, 40], 3)],
    attrs: [-100, 1, 0],
  },
};

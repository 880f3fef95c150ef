import {
  backward,
  type Device,
  type DType,
  empty,
  full,
  launch,
  linearCrossEntropy,
  ops,
  scope,
  type Tensor,
  watch,
} from '@deepspeed-ts/core';
import { random, randomIds, setsFor } from './time-kernel.js';

/** One thing to measure. What it makes is kept until `dispose`. */
export interface KernelCase {
  /** Shared by the lines of one kernel, and by the peer's. */
  readonly op: string;
  readonly shape: string;
  /** Bytes that it must read and write at least, or operations that it must do. */
  readonly bytes?: number;
  readonly flops?: number;
  prepare(device: Device): PreparedCase;
}

export interface PreparedCase {
  readonly tensors: readonly Tensor[];
  run(i: number): void;
}

type Spec = readonly [shape: readonly number[], dtype?: DType];

const TOKENS = 16384;
const bytesOf = ([shape, dtype = 'bf16']: Spec) =>
  shape.reduce((a, b) => a * b, 1) * { f32: 4, bf16: 2, f16: 2, i32: 4, i64: 8, u8: 1, i8: 1, bool: 1 }[dtype];

/** A plain launch on random inputs, taking turns between sets of tensors that together exceed the cache. */
function kernel(
  op: string,
  shape: string,
  inputs: readonly Spec[],
  outputs: readonly Spec[],
  attrs: Readonly<Record<string, number>>,
  counted: { bytes?: number; flops?: number },
  name = op,
): KernelCase {
  return {
    op: name,
    shape,
    ...counted,
    prepare(device) {
      const definition = ops.find((entry) => entry.name === op);
      if (!definition) throw new Error(`there is no op '${op}'`);
      const size = [...inputs, ...outputs].reduce((sum, spec) => sum + bytesOf(spec), 0);
      const sets = Array.from({ length: setsFor(size) }, () => ({
        ins: inputs.map(([dims, dtype]) => random(device, dims, dtype)),
        outs: outputs.map(([dims, dtype]) => empty(device, dims, dtype ?? 'bf16').keep()),
      }));
      const types = [...inputs, ...outputs].map(([, dtype = 'bf16']) => dtype);
      if (!definition.compose && !device.backend.supports(op, types)) throw new Error('the backend has no kernel for it');
      return {
        tensors: sets.flatMap(({ ins, outs }) => [...ins, ...outs]),
        run(i) {
          const { ins, outs } = sets[i % sets.length]!;
          launch(definition, ins, outs, attrs as never);
        },
      };
    },
  };
}

/** Ceilings: what a plain copy of 2 GiB and a large matrix product reach. */
export const copyCase = kernel('copy', '2 GiB bf16', [[[2 ** 30]]], [[[2 ** 30]]], {}, { bytes: 2 ** 32 });
export const matmulCase = product('matmul 8192x8192x8192', 8192, 8192, 8192);

/** y [m, n] = x [m, k] w [n, k]'. */
function product(name: string, m: number, n: number, k: number): KernelCase {
  return kernel(
    'linear',
    `${m}x${n}x${k} bf16`,
    [[[m, k]], [[n, k]]],
    [[[m, n]]],
    { n: 1, hasBias: 0, layout: 0 },
    { flops: 2 * m * n * k },
    name,
  );
}

/** A layer of a model: forward, gradient of the input, gradient of the weight added to what is there. */
function layer(name: string, outs: readonly number[], k: number, bias: boolean): KernelCase[] {
  const n = outs.reduce((a, b) => a + b, 0);
  const layout = bias ? 1 : 0;
  const weights: Spec[] = outs.map((out) => [layout ? [k, out] : [out, k]]);
  const biases: Spec[] = bias ? outs.map((out) => [[out]]) : [];
  const counted = { flops: 2 * TOKENS * n * k };
  const shape = `${TOKENS}x${n}x${k} bf16`;
  const forward = { n: outs.length, hasBias: Number(bias), layout };
  const dw = { columnOffset: 0, columns: n, layout };
  const weight: Spec = [layout ? [k, n] : [n, k]];
  return [
    kernel('linear', shape, [[[TOKENS, k]], ...weights, ...biases], [[[TOKENS, n]]], forward, counted, `${name} forward`),
    kernel(
      'linear_dx',
      shape,
      [[[TOKENS, n]], ...weights],
      [[[TOKENS, k]]],
      { n: outs.length, layout, columnOffset: 0 },
      counted,
      `${name} dx`,
    ),
    kernel('linear_dw', shape, [[[TOKENS, n]], [[TOKENS, k]]], [weight], { ...dw, accumulate: 0 }, counted, `${name} dw`),
    kernel('linear_dw', shape, [[[TOKENS, n]], [[TOKENS, k]]], [weight], { ...dw, accumulate: 1 }, counted, `${name} dw, accumulating`),
  ];
}

function norms(cols: number): KernelCase[] {
  const [x, w, shape] = [[[TOKENS, cols]] as Spec, [[cols]] as Spec, `${TOKENS}x${cols} bf16`];
  const one = bytesOf(x);
  const [layerStats, rmsStats] = [[[TOKENS, 2], 'f32'] as Spec, [[TOKENS, 1], 'f32'] as Spec];
  const both = { accumulateW: 0, accumulateB: 0 };
  return [
    kernel('layer_norm', shape, [x, w, w], [x, layerStats], { eps: 1e-5 }, { bytes: 2 * one }, 'layer_norm forward'),
    kernel('layer_norm', shape, [x, w, w, x], [x, layerStats, x], { eps: 1e-5 }, { bytes: 4 * one }, 'layer_norm forward, residual'),
    kernel('layer_norm_backward', shape, [x, x, w, layerStats], [x, w, w], both, { bytes: 3 * one }, 'layer_norm backward'),
    kernel('layer_norm_backward', shape, [x, x, w, layerStats, x], [x, w, w], both, { bytes: 4 * one }, 'layer_norm backward, residual'),
    kernel('rms_norm', shape, [x, w], [x, rmsStats], { eps: 1e-5, offset: 0 }, { bytes: 2 * one }, 'rms_norm forward'),
    kernel('rms_norm', shape, [x, w, x], [x, rmsStats, x], { eps: 1e-5, offset: 0 }, { bytes: 4 * one }, 'rms_norm forward, residual'),
    kernel('rms_norm_backward', shape, [x, x, w, rmsStats], [x, w], { accumulateW: 0, offset: 0 }, { bytes: 3 * one }, 'rms_norm backward'),
    kernel(
      'rms_norm_backward',
      shape,
      [x, x, w, rmsStats, x],
      [x, w],
      { accumulateW: 0, offset: 0 },
      { bytes: 4 * one },
      'rms_norm backward, residual',
    ),
    kernel('softmax', shape, [x], [x], {}, { bytes: 2 * one }, 'softmax forward'),
    kernel('softmax_backward', shape, [x, x], [x], {}, { bytes: 3 * one }, 'softmax backward'),
  ];
}

function attention(batch: number, heads: number, kvHeads: number, tokens: number, headDim: number): KernelCase[] {
  const attrs = { heads, kvHeads, headDim, scale: 1 / Math.sqrt(headDim), causal: 1, p: 0, seedLow: 0, seedHigh: 0, step: 0, stream: 0 };
  const qkv: Spec = [[batch, tokens, (heads + 2 * kvHeads) * headDim]];
  const y: Spec = [[batch, tokens, heads * headDim]];
  const lse: Spec = [[batch, heads, tokens], 'f32'];
  const shape = `B${batch} H${heads}${kvHeads === heads ? '' : `/${kvHeads}`} T${tokens} D${headDim}`;
  // Two products of T x T x D by head, half of each for the mask; backward does five.
  const flops = 2 * batch * heads * tokens * tokens * headDim;
  return [
    kernel('attention', shape, [qkv], [y, lse], attrs, { flops }, 'attention forward'),
    {
      op: 'attention backward',
      shape,
      flops: 2.5 * flops,
      prepare(device) {
        const [x, dy] = [random(device, qkv[0]), random(device, y[0])];
        const [out, statistics, dx] = [empty(device, y[0], 'bf16'), empty(device, lse[0], 'f32'), empty(device, qkv[0], 'bf16')].map((t) =>
          t.keep(),
        );
        // Its own results: probabilities made of other numbers would overflow.
        launch(named('attention'), [x], [out!, statistics!], attrs);
        return {
          tensors: [x, dy, out!, statistics!, dx!],
          run: () => launch(named('attention_backward'), [dy, x, out!, statistics!], [dx!], attrs),
        };
      },
    },
  ];
}

/** The head and its loss, forward and backward as a training step runs them. Three products count; what is computed again does not. */
function head(tokens: number, vocabulary: number, size: number): KernelCase {
  return {
    op: 'linear_cross_entropy forward + backward',
    shape: `${tokens}x${vocabulary}x${size} bf16`,
    flops: 6 * tokens * vocabulary * size,
    prepare(device) {
      const [x, w] = [random(device, [tokens, size]), random(device, [vocabulary, size], 'bf16', 0.02)];
      const labels = randomIds(device, vocabulary, [tokens]);
      return {
        tensors: [x, w, labels],
        run() {
          const [input, weight] = [watch(x), watch(w)];
          backward(linearCrossEntropy(input.tensor, weight.tensor, labels));
          for (const { leaf } of [input, weight]) leaf.gradient?.dispose();
        },
      };
    },
  };
}

function adamw(name: string, n: number, gradient: DType, low: DType | undefined): KernelCase {
  const attrs = { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0.1, bias1: 0.1, bias2: 0.001, decoupled: 1 };
  const bytes = n * (24 + bytesOf([[1], gradient]) + (low ? bytesOf([[1], low]) : 0));
  return {
    op: name,
    shape: `${(n / 1e9).toFixed(2)} B parameters`,
    bytes,
    prepare(device) {
      const coefficient = full(device, [1], 'f32', 1).keep();
      const [grad, master, m] = [random(device, [n], gradient, 0.01), random(device, [n], 'f32'), random(device, [n], 'f32', 0.01)];
      const v = full(device, [n], 'f32', 1e-4).keep();
      const outs = [master, m, v, ...(low ? [empty(device, [n], low).keep()] : [])];
      return { tensors: [coefficient, grad, ...outs], run: () => launch(named('adamw'), [grad, coefficient], outs, attrs) };
    },
  };
}

function elementwise(): KernelCase[] {
  const [wide, narrow]: [Spec, Spec] = [[[TOKENS, 8192]], [[TOKENS, 3072]]];
  const [one, hidden] = [bytesOf(wide), bytesOf(narrow)];
  const both: Spec = [[TOKENS, 16384]];
  const stream: Spec = [[TOKENS, 2048]];
  const draw = { p: 0.1, seedLow: 1, seedHigh: 2, step: 3, stream: 4 };
  const table: Spec = [[2048, 32], 'f32'];
  const flat: Spec = [[2 ** 28]];
  return [
    kernel('gelu', `${TOKENS}x3072 bf16`, [narrow], [narrow], { tanh: 1 }, { bytes: 2 * hidden }, 'gelu forward'),
    kernel('gelu_backward', `${TOKENS}x3072 bf16`, [narrow, narrow], [narrow], { tanh: 1 }, { bytes: 3 * hidden }, 'gelu backward'),
    kernel('swiglu', `${TOKENS}x8192 bf16`, [both], [wide], {}, { bytes: 3 * one }, 'swiglu forward'),
    kernel('swiglu_backward', `${TOKENS}x8192 bf16`, [wide, both], [both], {}, { bytes: 5 * one }, 'swiglu backward'),
    kernel('gelu_backward_recompute', `${TOKENS}x3072 bf16`, [narrow, narrow], [narrow, narrow], { tanh: 1 }, { bytes: 4 * hidden }),
    kernel('swiglu_backward_recompute', `${TOKENS}x8192 bf16`, [wide, both], [both, wide], {}, { bytes: 6 * one }),
    kernel(
      'linear_gelu',
      `${TOKENS}x3072x768 bf16`,
      [[[TOKENS, 768]], [[768, 3072]], [[3072]]],
      [narrow, narrow],
      { layout: 1 },
      { flops: 2 * TOKENS * 3072 * 768 },
    ),
    kernel(
      'linear_gelu_backward',
      `${TOKENS}x3072x768 bf16`,
      [[[TOKENS, 768]], [[3072, 768]], narrow],
      [narrow, narrow, [[3072]]],
      { layout: 1, accumulate: 0 },
      { flops: 2 * TOKENS * 3072 * 768 },
    ),
    kernel(
      'rope',
      '8x2048, 48 heads of 64 bf16',
      [[[8, 2048, 48 * 64]], table, table],
      [[[8, 2048, 48 * 64]]],
      { rotatedHeads: 40, headDim: 64, sign: 1, position: 0, rotaryDim: 64 },
      { bytes: 2 * TOKENS * 48 * 64 * 2 },
    ),
    kernel('dropout', `${TOKENS}x2048 bf16`, [stream], [stream], draw, { bytes: 2 * bytesOf(stream) }),
    kernel('add', `${TOKENS}x2048 bf16`, [stream, stream], [stream], {}, { bytes: 3 * bytesOf(stream) }),
    kernel('cast', '268 M f32 to bf16', [[[2 ** 28], 'f32']], [flat], {}, { bytes: 6 * 2 ** 28 }),
    kernel('accumulate', '268 M bf16', [flat], [flat], {}, { bytes: 6 * 2 ** 28 }),
    kernel('sum_squares', '1.07 B bf16', [[[2 ** 30]]], [[[1], 'f32']], {}, { bytes: 2 ** 31 }),
    kernel('column_sum', `${TOKENS}x3072 bf16`, [narrow], [[[3072]]], { columnOffset: 0, columns: 3072, accumulate: 1 }, { bytes: hidden }),
  ];
}

function embeddings(): KernelCase[] {
  const [vocabulary, size] = [128256, 2048];
  const rows = TOKENS * size * 2;
  const make = (op: string, bytes: number, body: (table: Tensor, ids: Tensor, y: Tensor) => void): KernelCase => ({
    op,
    shape: `${TOKENS} of ${vocabulary}x${size} bf16`,
    bytes,
    prepare(device) {
      const [table, y, ids] = [random(device, [vocabulary, size]), random(device, [TOKENS, size]), randomIds(device, vocabulary, [TOKENS])];
      return { tensors: [table, y, ids], run: () => body(table, ids, y) };
    },
  });
  return [
    make('embedding forward', 2 * rows, (table, ids, y) => launch(named('embedding'), [table, ids], [y], {})),
    make('embedding backward, accumulating', 3 * rows, (table, ids, y) =>
      launch(named('embedding_backward'), [y, ids], [table], { accumulate: 1 }),
    ),
  ];
}

function named(name: string) {
  return ops.find((op) => op.name === name)!;
}

/** In the order in which they run. */
export function kernelCases(): KernelCase[] {
  return [
    ...[768, 2048, 8192].flatMap(norms),
    ...elementwise(),
    ...embeddings(),
    adamw('adamw f32', 1e9, 'f32', undefined),
    adamw('adamw f32 + bf16 copy', 1e9, 'f32', 'bf16'),
    adamw('adamw f32 + bf16 copy, bf16 gradients', 1e9, 'bf16', 'bf16'),
    ...attention(16, 12, 12, 1024, 64),
    ...attention(8, 32, 32, 2048, 64),
    ...attention(8, 32, 8, 2048, 64),
    ...attention(4, 32, 32, 4096, 128),
    ...attention(1, 32, 32, 16384, 128),
    product('matmul', 16384, 3072, 768),
    product('matmul', 16384, 8192, 2048),
    product('matmul', 16384, 2048, 8192),
    product('matmul', 16384, 128256, 2048),
    ...layer('gpt2 qkv', [2304], 768, true),
    ...layer('gpt2 attention out', [768], 768, true),
    ...layer('gpt2 up', [3072], 768, true),
    ...layer('gpt2 down', [768], 3072, true),
    ...layer('llama qkv', [2048, 512, 512], 2048, false),
    ...layer('llama gate and up', [8192, 8192], 2048, false),
    ...layer('llama down', [2048], 8192, false),
    head(16384, 50304, 768),
    head(16384, 128256, 2048),
  ];
}

/** What JavaScript spends on a launch, in microseconds, while the device keeps up. */
export function launchMicroseconds(device: Device): number {
  return scope(() => {
    const [a, b, y] = [0, 1, 2].map(() => full(device, [16], 'f32', 1)) as [Tensor, Tensor, Tensor];
    let best = Number.POSITIVE_INFINITY;
    for (let round = 0; round < 20; round++) {
      const start = performance.now();
      for (let i = 0; i < 200; i++) launch(named('add'), [a, b], [y], {});
      best = Math.min(best, (performance.now() - start) * 5);
      y.readSync();
    }
    return best;
  });
}

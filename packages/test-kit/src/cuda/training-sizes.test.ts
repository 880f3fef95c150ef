import {
  castTo,
  type Device,
  type DType,
  type FloatDType,
  fromHost,
  type HostTensor,
  hostTensor,
  launch,
  normals,
  ops,
  scope,
  type Tensor,
} from '@deepspeed-ts/core';
import { cpuBackend } from '@deepspeed-ts/kernels-cpu';
import { cudaBackend } from '@deepspeed-ts/kernels-cuda';
import { documentPositions } from '@deepspeed-ts/transformers';
import { describe, expect, test } from 'vitest';
import { magnitudes } from '../magnitudes.js';
import { withDevice } from '../with-device.js';
import { gpus } from './devices.js';

// The op contract's references are too slow for sizes of real models, where kernels take other paths: here the CPU's kernels, which
// the contract has tested, are what the GPU's are compared with.

interface Case {
  readonly op: string;
  readonly inputs: readonly HostTensor[];
  readonly attrs?: Readonly<Record<string, number>>;
  /** For ops that read what they write. */
  readonly outputs?: readonly HostTensor[];
  readonly dtypes?: readonly FloatDType[];
  /** Inputs that are f32 in every dtype. */
  readonly keep?: readonly number[];
}

const TOLERANCE: Record<FloatDType, number> = { f32: 5e-5, f16: 8e-3, bf16: 4e-2 };
/** Of a logarithm of a sum of exponentials of logits that were kept in 16 bits. */
const STATISTICS = 4e-3;
const pattern = normals({ seed: 3 }, 0, 65_521);

/** Values that are made when they are asked for: together the cases would fill gigabytes. */
function lazy(shape: readonly number[], dtype: DType, valueAt: (i: number) => number): HostTensor {
  const length = shape.reduce((a, b) => a * b, 1);
  return {
    shape,
    dtype,
    get data() {
      const data = new Float64Array(length);
      for (let i = 0; i < length; i++) data[i] = valueAt(i);
      return data;
    },
  };
}

/** Normal values of a standard deviation, a different stretch of them for each `salt`. */
function randn(shape: readonly number[], scale = 1, salt = 0): HostTensor {
  return lazy(shape, 'f32', (i) => scale * pattern[(i + 7919 * salt) % pattern.length]!);
}

function positive(shape: readonly number[], scale: number, salt: number): HostTensor {
  return lazy(shape, 'f32', (i) => Math.abs(scale * pattern[(i + 7919 * salt) % pattern.length]!) + 0.3 * scale);
}

function ids(bound: number, ...shape: number[]): HostTensor {
  return lazy(shape, 'i32', (i) => Math.floor((((i * 2654435761) % 2 ** 32) / 2 ** 32) * bound));
}

const noDropout = { p: 0, seedLow: 0, seedHigh: 0, step: 0, stream: 0 };
const heads = (count: number, kvHeads: number, headDim: number) => ({
  heads: count,
  kvHeads,
  headDim,
  scale: 1 / Math.sqrt(headDim),
  causal: 1,
  ...noDropout,
});

/** Weights of about the size that keeps activations near one. */
const weight = (out: number, size: number, salt: number) => randn([out, size], 1 / Math.sqrt(size), salt);

const elementwise: readonly Case[] = [
  { op: 'add', inputs: [randn([1025, 3072]), randn([1025, 3072], 1, 1)] },
  { op: 'gelu', inputs: [randn([2048, 3072], 3)], attrs: { tanh: 1 } },
  { op: 'gelu_backward', inputs: [randn([2048, 3072]), randn([2048, 3072], 3, 1)], attrs: { tanh: 1 } },
  { op: 'swiglu', inputs: [randn([515, 16_384], 2)] },
  { op: 'swiglu_backward', inputs: [randn([515, 8192]), randn([515, 16_384], 2, 1)] },
  { op: 'dropout', inputs: [randn([3_000_001])], attrs: { p: 0.1, seedLow: 5, seedHigh: 9, step: 77, stream: 3 } },
  {
    op: 'rope',
    inputs: [randn([2, 1024, 48 * 64]), randn([1024, 32], 0.5, 1), randn([1024, 32], 0.5, 2)],
    attrs: { rotatedHeads: 40, headDim: 64, sign: 1, position: 0, rotaryDim: 64 },
    keep: [1, 2],
  },
  {
    op: 'rope',
    inputs: [randn([2, 1024, 48 * 80]), randn([1024, 16], 0.5, 1), randn([1024, 16], 0.5, 2)],
    attrs: { rotatedHeads: 32, headDim: 80, sign: 1, position: 0, rotaryDim: 32 },
    keep: [1, 2],
  },
  { op: 'relu', inputs: [randn([1025, 3072])] },
  { op: 'relu_backward', inputs: [randn([1025, 3072]), randn([1025, 3072], 1, 1)] },
  { op: 'geglu', inputs: [randn([515, 18_432], 2)], attrs: { tanh: 1 } },
  { op: 'geglu_backward', inputs: [randn([515, 9216]), randn([515, 18_432], 2, 1)], attrs: { tanh: 1 } },
  { op: 'softcap', inputs: [randn([515, 32_001], 40)], attrs: { cap: 30 } },
  { op: 'swap_heads', inputs: [randn([2, 1001, 3 * 64 * 96])], attrs: { groups: 64, heads: 3 } },
  { op: 'swap_heads', inputs: [randn([2, 1001, 3 * 64 * 96])], attrs: { groups: 3, heads: 64 } },
  { op: 'embedding', inputs: [randn([50_304, 768]), ids(50_304, 4, 1024)] },
  { op: 'embedding_backward', inputs: [randn([4096, 768]), ids(50_304, 4096)], attrs: { accumulate: 0 }, outputs: [randn([50_304, 768])] },
  { op: 'embedding_backward', inputs: [randn([4096, 771]), ids(19, 4096)], attrs: { accumulate: 1 }, outputs: [randn([19, 771])] },
];

const rows: readonly Case[] = [
  [4096, 768],
  [1001, 2048],
  [130, 1600],
  [67, 8192],
  [5, 20_001],
].flatMap(([n, c]): Case[] => {
  const [x, w, b, r] = [randn([n!, c!]), randn([c!], 1, 1), randn([c!], 1, 2), randn([n!, c!], 1, 3)];
  const stats = positive([n!, 2], 0.5, 4);
  const rms = positive([n!, 1], 0.5, 4);
  return [
    { op: 'layer_norm', inputs: [x, w, b], attrs: { eps: 1e-5 } },
    { op: 'layer_norm', inputs: [x, w, b, r], attrs: { eps: 1e-5 } },
    { op: 'layer_norm_backward', inputs: [r, x, w, stats, x], attrs: { accumulateW: 1, accumulateB: 0 }, outputs: [x, w, b], keep: [3] },
    { op: 'rms_norm', inputs: [x, w, r], attrs: { eps: 1e-5, offset: 0 } },
    { op: 'rms_norm_backward', inputs: [r, x, w, rms], attrs: { accumulateW: 1, offset: 0 }, outputs: [x, w], keep: [3] },
    { op: 'softmax', inputs: [x] },
    { op: 'softmax_backward', inputs: [r, positive([n!, c!], 0.01, 5)] },
  ];
});

const headNorms: readonly Case[] = [
  [32, 8, 128],
  [8, 4, 256],
  [3, 1, 96],
].flatMap(([count, kvHeads, headDim]): Case[] => {
  const attrs = { heads: count!, kvHeads: kvHeads!, headDim: headDim!, eps: 1e-6, offset: 1 };
  const width = (count! + 2 * kvHeads!) * headDim!;
  const [qkv, dy, wq, wk] = [randn([2, 1001, width]), randn([2, 1001, width], 1, 1), randn([headDim!], 1, 2), randn([headDim!], 1, 3)];
  const stats = positive([2, 1001, count! + kvHeads!], 0.5, 4);
  return [
    { op: 'head_norm', inputs: [qkv, wq, wk], attrs },
    {
      op: 'head_norm_backward',
      inputs: [dy, qkv, wq, wk, stats],
      attrs: { ...attrs, accumulateQ: 1, accumulateK: 0 },
      outputs: [qkv, wq, wk],
      keep: [4],
    },
  ];
});

const products: readonly Case[] = [
  { op: 'linear', inputs: [randn([2048, 768]), weight(768, 2304, 1), randn([2304], 1, 2)], attrs: { n: 1, hasBias: 1, layout: 1 } },
  { op: 'linear', inputs: [randn([1024, 3072]), weight(768, 3072, 1), randn([768], 1, 2)], attrs: { n: 1, hasBias: 1, layout: 0 } },
  {
    op: 'linear',
    inputs: [randn([1, 777, 2048]), weight(2048, 2048, 1), weight(512, 2048, 2), weight(512, 2048, 3)],
    attrs: { n: 3, hasBias: 0, layout: 0 },
  },
  { op: 'linear', inputs: [randn([131, 1037]), weight(259, 1037, 1), randn([259], 1, 2)], attrs: { n: 1, hasBias: 1, layout: 0 } },
  { op: 'linear_dx', inputs: [randn([1024, 2304]), weight(768, 2304, 1)], attrs: { n: 1, layout: 1, columnOffset: 0 } },
  {
    op: 'linear_dx',
    inputs: [randn([777, 3072]), weight(2048, 2048, 1), weight(512, 2048, 2), weight(512, 2048, 3)],
    attrs: { n: 3, layout: 0, columnOffset: 0 },
  },
  {
    op: 'linear_dx',
    inputs: [randn([777, 3072]), weight(512, 16, 1)],
    attrs: { n: 1, layout: 0, columnOffset: 2048 },
  },
  { op: 'linear_add', inputs: [randn([777, 16]), weight(512, 16, 1)], attrs: { columnOffset: 2048 }, outputs: [randn([777, 3072], 1, 2)] },
  ...[0, 1].map((format): Case => ({ op: 'quantize', inputs: [randn([1037, 4099])], attrs: { format } })),
  ...[0, 1].flatMap((accumulate): Case[] => [
    {
      op: 'linear_dw',
      inputs: [randn([2048, 2304], 0.05), randn([2048, 768], 1, 1)],
      attrs: { columnOffset: 0, columns: 2304, layout: 1, accumulate },
      outputs: [randn([768, 2304], 1, 2)],
    },
    {
      op: 'linear_dw',
      inputs: [randn([777, 3072], 0.05), randn([777, 2048], 1, 1)],
      attrs: { columnOffset: 2048, columns: 512, layout: 0, accumulate },
      outputs: [randn([512, 2048], 1, 2)],
    },
    {
      op: 'linear_dw',
      inputs: [randn([519, 131], 0.1), randn([519, 257], 1, 1)],
      attrs: { columnOffset: 33, columns: 65, layout: 0, accumulate },
      outputs: [randn([65, 257], 1, 2)],
    },
    {
      op: 'column_sum',
      inputs: [randn([4096, 2304])],
      attrs: { columnOffset: 0, columns: 2304, accumulate },
      outputs: [randn([2304], 9, 1)],
    },
    { op: 'column_sum', inputs: [randn([1037, 131])], attrs: { columnOffset: 33, columns: 65, accumulate }, outputs: [randn([65], 9, 1)] },
  ]),
  ...[
    [4097, 768, 3072],
    [333, 1600, 6400],
    [1037, 64, 771],
  ].map(
    ([n, size, hidden]): Case => ({
      op: 'linear_gelu_backward',
      inputs: [randn([n!, size!], 0.05), weight(hidden!, size!, 1), randn([n!, hidden!], 2, 2)],
      attrs: { layout: 1, accumulate: 1 },
      outputs: [randn([n!, hidden!]), randn([n!, hidden!]), randn([hidden!], 1, 3)],
    }),
  ),
  { op: 'matmul', inputs: [randn([6, 256, 64]), randn([6, 256, 64], 1, 1)], attrs: { transA: 0, transB: 1 } },
  { op: 'matmul', inputs: [randn([513, 1024], 0.1), randn([1024, 770], 1, 1)], attrs: { transA: 0, transB: 0 } },
  {
    op: 'linear_cross_entropy',
    inputs: [randn([2000, 768]), weight(50_304, 768, 1), ids(50_304, 2000)],
    attrs: { ignoreIndex: -100, softcap: 0 },
  },
  {
    op: 'linear_cross_entropy',
    inputs: [randn([517, 2048]), weight(32_001, 2048, 1), ids(32_001, 517)],
    attrs: { ignoreIndex: 7, softcap: 0 },
  },
  {
    op: 'linear_cross_entropy',
    inputs: [randn([517, 2304]), weight(32_001, 2304, 1), ids(32_001, 517)],
    attrs: { ignoreIndex: -100, softcap: 2 },
  },
];

const optimizer: readonly Case[] = [
  {
    op: 'adamw',
    inputs: [randn([5_000_003]), hostTensor([1], 'f32', [0.7])],
    attrs: { lr: 1e-2, beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, bias1: 0.19, bias2: 0.0975, decoupled: 1 },
    outputs: [randn([5_000_003], 1, 1), randn([5_000_003], 1, 2), positive([5_000_003], 1, 3), lazy([5_000_003], 'bf16', () => 0)],
    keep: [1],
    dtypes: ['f32', 'bf16'],
  },
  { op: 'sum_squares', inputs: [randn([20_000_003])] },
];

const mixtures: readonly Case[] = [
  { tokens: 700, experts: 8, k: 2, size: 512, hidden: 776 },
  { tokens: 3, experts: 4, k: 2, size: 520, hidden: 776 },
  { tokens: 300, experts: 20, k: 4, size: 387, hidden: 330 },
].flatMap(({ tokens, experts, k, size, hidden }): Case[] => {
  const { weights, order, place, offsets } = routed(tokens, experts, k);
  const [places, x, h] = [tokens * k, randn([tokens, size]), randn([tokens * k, 2 * hidden], 1, 1)];
  const maps = (count: number, out: number, into: number) => Array.from({ length: count }, (_, i) => weight(out, into, i));
  const dw = (accumulate: number): Case => ({
    op: 'expert_linear_dw',
    inputs: [randn(h.shape, 0.05), x, order, offsets],
    attrs: { first: 1, columnOffset: hidden, gatherDy: 0, gatherX: k, accumulate },
    outputs: maps(experts - 1, hidden, size),
  });
  return [
    { op: 'expert_linear', inputs: [x, order, offsets, ...maps(2 * experts, hidden, size)], attrs: { n: 2, gather: k } },
    { op: 'expert_linear_dx', inputs: [h, order, offsets, ...maps(2 * experts, hidden, size)], attrs: { n: 2, gather: 0 } },
    { op: 'expert_linear_dx', inputs: [x, order, offsets, ...maps(experts, size, hidden)], attrs: { n: 1, gather: k } },
    dw(0),
    dw(1),
    { op: 'expert_swiglu', inputs: [h, weights, order], keep: [1] },
    { op: 'expert_swiglu_backward', inputs: [randn([places, hidden]), h, weights, order], keep: [2] },
    { op: 'combine', inputs: [randn([places, size]), place], attrs: { k } },
    { op: 'router_load', inputs: [randn([tokens, experts], 3), offsets] },
    { op: 'router_load_backward', inputs: [randn([2, experts]), randn([tokens, experts], 3)], keep: [0] },
  ];
});

/** Where a router of random scores sends its tokens. */
function routed(tokens: number, experts: number, k: number) {
  const op = ops.find(({ name }) => name === 'route')!;
  const logits = randn([tokens, experts]);
  const outputs = op.infer([logits], { k }).map(({ shape, dtype }) => hostTensor(shape, dtype));
  op.reference([{ ...logits, data: logits.data }], { k }, outputs);
  const [weights, , order, place, offsets] = outputs as [HostTensor, HostTensor, HostTensor, HostTensor, HostTensor];
  return { weights, order, place, offsets };
}

const attentions = (
  [
    [2, 1024, heads(12, 12, 64)],
    [1, 2048, heads(8, 2, 64)],
    [1, 513, heads(4, 4, 128)],
    [2, 700, heads(6, 2, 128)],
    [3, 200, heads(3, 3, 80)],
    [2, 333, { ...heads(4, 4, 64), causal: 0 }],
    [1, 260, { ...heads(4, 2, 64), p: 0.2, seedLow: 3, step: 5, stream: 1 }],
    [1, 1024, { ...heads(8, 4, 256), softcap: 5, window: 0, alibi: 0 }],
    [1, 1000, { ...heads(4, 2, 128), softcap: 5, window: 300, alibi: 0 }],
    [2, 1024, { ...heads(12, 12, 64), alibi: 1, window: 0, softcap: 0 }],
    [1, 513, { ...heads(6, 6, 96), alibi: 1, window: 0, softcap: 0 }],
    [1, 1024, heads(4, 2, 64), [300, 1, 1, 400, 64]],
    [1, 700, heads(2, 2, 128), [1, 127, 500]],
  ] as const
).map(([batch, tokens, attrs, documents]) => ({
  qkv: randn([batch, tokens, (attrs.heads + 2 * attrs.kvHeads) * attrs.headDim]),
  attrs,
  positions: documents ? [hostTensor([batch, tokens], 'i32', documentPositions(documents, tokens))] : [],
}));

describe.skipIf(gpus() === 0)('at the sizes of real models a GPU computes what the CPU does', () => {
  for (const c of [...elementwise, ...rows, ...headNorms, ...products, ...mixtures, ...optimizer]) {
    for (const dtype of c.dtypes ?? (['f32', 'bf16'] as const)) test(`${describeCase(c)} in ${dtype}`, () => compare(c, dtype));
  }

  for (const { qkv, attrs, positions } of attentions) {
    for (const dtype of ['f32', 'bf16', 'f16'] as const) {
      test(`attention ${JSON.stringify(qkv.shape)}, ${attrs.heads}/${attrs.kvHeads} heads of ${attrs.headDim}, dropout ${attrs.p}${'softcap' in attrs ? (attrs.alibi ? ', alibi' : ', soft cap') : ''}${positions.length > 0 ? ', documents' : ''}, in ${dtype}`, () => {
        const forward: Case = { op: 'attention', inputs: [qkv, ...positions], attrs };
        const [y, lse] = compare(forward, dtype);
        const dy = randn(y!.shape, 1, 5);
        compare({ op: 'attention_backward', inputs: [dy, qkv, y!, lse!, ...positions], attrs, keep: [3] }, dtype);
      });
    }
  }

  // Rows of logits that fit shared memory twice, once and not at all.
  for (const [tokens, size, vocabulary] of [
    [2000, 256, 20_011],
    [2000, 768, 50_304],
    [517, 512, 32_001],
    [300, 256, 99_999],
    [200, 256, 128_256],
    [200, 64, 262_144],
  ] as const) {
    test.each(['f32', 'bf16', 'f16'] as const)(`linear_cross_entropy_fused ${tokens}x${size}x${vocabulary} in %s`, (dtype) => {
      compareFusedHead(tokens, size, vocabulary, dtype);
    });
  }

  for (const [tokens, size, vocabulary] of [
    [2000, 768, 50_304],
    [517, 2048, 32_001],
  ] as const) {
    test.each(['f32', 'bf16'] as const)(`linear_cross_entropy_backward ${tokens}x${size}x${vocabulary} in %s`, (dtype) => {
      // Logits are kept in 16 bits there: of the size that a trained model's have, so that this shows no more than rounding.
      const [x, w, labels] = [randn([tokens, size], 0.25), weight(vocabulary, size, 1), ids(vocabulary, tokens)];
      const [, lse] = compare({ op: 'linear_cross_entropy', inputs: [x, w, labels], attrs: { ignoreIndex: 3, softcap: 0 } }, dtype);
      compare(
        {
          op: 'linear_cross_entropy_backward',
          inputs: [hostTensor([], 'f32', [100]), x, w, labels, lse!],
          attrs: { ignoreIndex: 3, accumulate: 1, softcap: 0 },
          outputs: [lazy(x.shape, 'f32', () => 0), randn(w.shape, 0.1, 4)],
          keep: [0, 4],
        },
        dtype,
      );
    });
  }
});

/** The op that makes loss and gradients in one pass has no kernel on the CPU: it must give what forward and backward apart give. */
function compareFusedHead(tokens: number, size: number, vocabulary: number, dtype: FloatDType): void {
  const labels = ids(vocabulary, tokens);
  const inputs = [randn([tokens, size], 0.25), weight(vocabulary, size, 1), labels];
  const attrs = { ignoreIndex: labels.data[1]! };
  const [loss, valid, dx, dw] = run({ op: 'linear_cross_entropy_fused', inputs, attrs }, dtype, 'cuda');
  const [expectedLoss, lse] = run({ op: 'linear_cross_entropy', inputs, attrs }, dtype, 'cuda');
  expect(valid!.data[0]).toBe(labels.data.filter((label) => label !== attrs.ignoreIndex).length);
  expectClose(loss!, expectedLoss!, dtype, 'loss');
  const apart = run(
    { op: 'linear_cross_entropy_backward', inputs: [valid!, ...inputs, lse!], attrs: { ...attrs, accumulate: 0 }, keep: [0, 4] },
    dtype,
    'cuda',
  );
  expectClose(apart[0]!, dx!, dtype, 'dx');
  expectClose(apart[1]!, dw!, dtype, 'dw');
}

/** Runs the case on both; gives the CPU's outputs. */
function compare(c: Case, dtype: FloatDType): HostTensor[] {
  const [expected, actual] = [run(c, dtype, 'cpu'), run(c, dtype, 'cuda')];
  for (const [i, host] of actual.entries()) expectClose(host, expected[i]!, dtype, `output ${i}`);
  return expected;
}

function run(c: Case, dtype: FloatDType, where: 'cpu' | 'cuda'): HostTensor[] {
  const op = ops.find(({ name }) => name === c.op)!;
  const attrs = c.attrs ?? {};
  const specs = c.inputs.map(({ shape, dtype: own }, i) => ({ shape, dtype: own === 'f32' && !c.keep?.includes(i) ? dtype : own }));
  const inferred = op.infer(specs, attrs);
  const starts = c.outputs ?? inferred.map(({ shape, dtype: own }) => lazy(shape, own, () => 0));
  return withDevice(where === 'cpu' ? cpuBackend() : cudaBackend(), (device) =>
    scope(() => {
      const ins = c.inputs.map((host, i) => onDevice(device, host, specs[i]!.dtype));
      const outs = starts.map((host, i) => onDevice(device, host, host.dtype === 'f32' ? (inferred[i]?.dtype ?? 'f32') : host.dtype));
      const types = [...ins, ...outs].map((tensor) => tensor.dtype);
      expect(!!op.compose || device.backend.supports(c.op, types), `${where} has no kernel ${c.op} for ${types.join(', ')}`).toBe(true);
      launch(op, ins, outs, attrs as never);
      return outs.map((out) => ({ ...castTo(out, 'f32').readSync(), dtype: out.dtype }));
    }),
  );
}

/** Rounded there: rounding millions of values in JavaScript takes seconds. */
function onDevice(device: Device, host: HostTensor, dtype: DType): Tensor {
  const tensor = fromHost(device, host.dtype === 'i32' ? host : { shape: host.shape, dtype: 'f32', data: host.data });
  return tensor.dtype === dtype ? tensor : castTo(tensor, dtype as FloatDType);
}

/** Statistics are f32 whatever the op computes in: then they are as exact as what they were taken from. */
function expectClose(actual: HostTensor, expected: HostTensor, dtype: FloatDType, what: string): void {
  const tolerance = actual.dtype === 'f32' && dtype !== 'f32' ? STATISTICS : TOLERANCE[actual.dtype as FloatDType];
  const magnitude = magnitudes(expected);
  let worst = 0;
  let at = -1;
  for (let i = 0; i < expected.data.length; i++) {
    const error = Math.abs(actual.data[i]! - expected.data[i]!) / (Math.abs(expected.data[i]!) + magnitude(i));
    if (!(error <= worst)) [worst, at] = [error, i];
    if (Number.isNaN(error)) break;
  }
  if (!(worst <= tolerance))
    expect.fail(
      `${what}: element ${at} of ${expected.data.length} is ${actual.data[at]}, the CPU has ${expected.data[at]} (off by ${worst})`,
    );
}

function describeCase({ op, inputs, attrs = {} }: Case): string {
  const flags = Object.entries(attrs).filter(([key]) => /accumulate|layout|columnOffset/.test(key));
  return [
    op,
    inputs
      .slice(0, 5)
      .map(({ shape }) => shape.join('x'))
      .join(' '),
    ...flags.map(([key, value]) => `${key} ${value}`),
  ].join(', ');
}

import { type Device, empty, launch, ops, type Tensor } from '@deepspeed-ts/core';
import type { KernelCase } from './kernel-cases.js';
import { random } from './time-kernel.js';

interface Sizes {
  readonly tokens: number;
  readonly dim: number;
  readonly hidden: number;
  readonly experts: number;
  readonly k: number;
}

interface Routed {
  readonly weights: Tensor;
  readonly order: Tensor;
  readonly place: Tensor;
  readonly offsets: Tensor;
}

/** The parts of a mixture of experts in bf16, as a training step runs them; tokens are routed at random. Products beside dense ones of as many FLOPs. */
export function expertCases({ tokens, dim, hidden, experts, k }: Sizes): KernelCase[] {
  const rows = tokens * k;
  const name = `${rows} of ${experts}x${2 * hidden}x${dim}`;
  const dense = `${rows}x${2 * hidden}x${dim} bf16`;
  const flops = 2 * rows * 2 * hidden * dim;
  const matrices = (device: Device, count: number) => Array.from({ length: count }, () => random(device, [hidden, dim], 'bf16', 0.02));
  const make = (op: string, counted: object, body: (device: Device, routed: Routed) => { tensors: Tensor[]; run(): void }): KernelCase => ({
    op,
    shape: `${name} bf16`,
    ...counted,
    prepare(device) {
      const { routed, all } = route(device, { tokens, experts, k });
      const { tensors, run } = body(device, routed);
      return { tensors: [...all, ...tensors], run };
    },
  });
  return [
    make('route', { bytes: tokens * (2 * experts + 16 * k) }, (device) => {
      const logits = random(device, [tokens, experts]);
      const outputs = routeOutputs(device, { tokens, experts, k });
      return { tensors: [logits, ...outputs], run: () => launch(named('route'), [logits], outputs, { k }) };
    }),
    make('expert_linear gate and up', { flops }, (device, { order, offsets }) => {
      const [x, y] = [random(device, [tokens, dim]), empty(device, [rows, 2 * hidden], 'bf16').keep()];
      const w = matrices(device, 2 * experts);
      return { tensors: [x, y, ...w], run: () => launch(named('expert_linear'), [x, order, offsets, ...w], [y], { n: 2, gather: k }) };
    }),
    make('expert_linear dx', { flops }, (device, { order, offsets }) => {
      const [dy, dx] = [random(device, [rows, 2 * hidden]), empty(device, [rows, dim], 'bf16').keep()];
      const w = matrices(device, 2 * experts);
      return {
        tensors: [dy, dx, ...w],
        run: () => launch(named('expert_linear_dx'), [dy, order, offsets, ...w], [dx], { n: 2, gather: 0 }),
      };
    }),
    make('expert_linear dw, accumulating', { flops: flops / 2 }, (device, { order, offsets }) => {
      const [dy, x] = [random(device, [rows, 2 * hidden]), random(device, [tokens, dim])];
      const dw = matrices(device, experts);
      const attrs = { first: 0, columnOffset: hidden, gatherDy: 0, gatherX: k, accumulate: 1 };
      return { tensors: [dy, x, ...dw], run: () => launch(named('expert_linear_dw'), [dy, x, order, offsets], dw, attrs) };
    }),
    make('expert_swiglu backward', { bytes: rows * hidden * 2 * 6 }, (device, { order, weights }) => {
      const [da, h] = [random(device, [rows, hidden]), random(device, [rows, 2 * hidden])];
      const [dh, dweights] = [empty(device, [rows, 2 * hidden], 'bf16').keep(), empty(device, [tokens, k], 'f32').keep()];
      return {
        tensors: [da, h, dh, dweights],
        run: () => launch(named('expert_swiglu_backward'), [da, h, weights, order], [dh, da, dweights], {}),
      };
    }),
    make('combine', { bytes: (rows + tokens) * dim * 2 }, (device, { place }) => {
      const [x, y] = [random(device, [rows, dim]), empty(device, [tokens, dim], 'bf16').keep()];
      return { tensors: [x, y], run: () => launch(named('combine'), [x, place], [y], { k }) };
    }),
    {
      op: 'expert_linear gate and up, dense',
      shape: dense,
      flops,
      prepare(device) {
        const [x, w] = [random(device, [rows, dim]), random(device, [2 * hidden, dim], 'bf16', 0.02)];
        const y = empty(device, [rows, 2 * hidden], 'bf16').keep();
        return { tensors: [x, w, y], run: () => launch(named('linear'), [x, w], [y], { n: 1, hasBias: 0, layout: 0 }) };
      },
    },
  ];
}

function route(device: Device, sizes: Pick<Sizes, 'tokens' | 'experts' | 'k'>): { routed: Routed; all: Tensor[] } {
  const logits = random(device, [sizes.tokens, sizes.experts]);
  const outputs = routeOutputs(device, sizes);
  launch(named('route'), [logits], outputs, { k: sizes.k });
  const [weights, , order, place, offsets] = outputs as [Tensor, Tensor, Tensor, Tensor, Tensor];
  return { routed: { weights, order, place, offsets }, all: [logits, ...outputs] };
}

function routeOutputs(device: Device, { tokens, experts, k }: Pick<Sizes, 'tokens' | 'experts' | 'k'>): Tensor[] {
  const specs = named('route').infer([{ shape: [tokens, experts], dtype: 'bf16' }], { k });
  return specs.map(({ shape, dtype }) => empty(device, shape, dtype).keep());
}

function named(name: string) {
  return ops.find((op) => op.name === name)!;
}

import { bytesOf, type DType, isFloat, type MemoryModel, numelOf, type ScratchRequest, type View } from '@deepspeed-ts/core';

const MiB = 2 ** 20;

/** Ops that core composes of others here: there is no kernel. */
const absent = new Set(['experts', 'linear_fp8', 'lora', 'mlp', 'mlp_fp8']);
/** Kernels that don't take every float dtype. */
const taken: Readonly<Record<string, readonly DType[]>> = {
  grad_norm: ['f32'],
  load_balance: ['f32'],
  load_balance_backward: ['f32'],
  linear_gelu: ['bf16', 'f16'],
  ...Object.fromEntries(['fp8_advance', 'fp8_cast', 'fp8_matmul', 'fp8_swiglu', 'fp8_swiglu_backward'].map((op) => [op, ['f32', 'bf16']])),
};

/** What the CUDA backend takes beside tensors: the growing heaps of native/allocator.cc and the scratch memory of native/ops. */
export function cudaMemoryModel(): MemoryModel {
  const heap = { block: 512, joins: true };
  return {
    name: 'cuda',
    supports: (op, dtypes) => !absent.has(op) && dtypes.every((dtype) => !isFloat(dtype) || (taken[op]?.includes(dtype) ?? true)),
    scratch: scratchOf,
    scratchBlock: (bytes) => roundUp(bytes, 2 * MiB),
    heaps: [
      { ...heap, step: 2 * MiB, least: 2 * MiB },
      { ...heap, step: 32 * MiB, least: 32 * MiB },
    ],
    heapOf: (bytes) => Number(bytes > MiB),
    hostApart: true,
    // Allowances, not counted by anybody: what the driver keeps for the context with all kernels loaded, and what NCCL's channels take.
    fixed: (ranks) => ({ context: 768 * MiB, ...(ranks > 1 && { nccl: 1024 * MiB }) }),
    host: () => ({ process: 512 * MiB, staging: 256 * MiB }),
  };
}

/** Slots as in native/kernel.h. */
function* scratchOf(op: string, inputs: readonly View[], outputs: readonly View[], attrs: readonly number[]): Generator<ScratchRequest> {
  const [x, w] = inputs;
  if (products.has(op)) yield ['gemm', 64 * MiB];
  switch (op) {
    case 'linear':
    case 'linear_dx':
    case 'linear_gelu': {
      const count = op.endsWith('gelu') ? 1 : attrs[0]!;
      const layout = op === 'linear' ? attrs[2]! : op === 'linear_dx' ? attrs[1]! : attrs[0]!;
      const weights = inputs.slice(1, 1 + count);
      if (count > 1 && (layout === 1 || !adjacent(weights))) yield ['a', bytesOfAll(weights)];
      const biases = op === 'linear' && attrs[1] ? inputs.slice(1 + count, 1 + 2 * count) : [];
      if (!adjacent(biases)) yield ['b', bytesOfAll(biases)];
      return;
    }
    case 'linear_gelu_backward':
      return yield ['a', geluSums(inputs[2]!)];
    case 'linear_cross_entropy':
      return yield* head(x!, w!, false);
    case 'linear_cross_entropy_fused':
      return yield* head(x!, w!, true);
    case 'linear_cross_entropy_backward': {
      const [, dw] = outputs;
      const sums = !dw || dw.dtype === 'f32' ? 0 : 4 * numelOf(dw.shape);
      if (sums <= 1200 * MiB) yield ['c', sums];
      return yield* head(w!, inputs[2]!, true);
    }
    case 'attention':
      // cuDNN's own, for its forward pass: some bytes for each sequence.
      return yield ['attention', 2 * MiB];
    case 'attention_backward':
      return yield* attentionBackward(w!, attrs);
    case 'cached_attention': {
      const [batch = 1, tokens = 1] = x!.shape;
      const [heads = 1, , headDim = 1, length = 0] = attrs;
      const blocks = Math.ceil((length + tokens) / 256);
      return blocks > 1 ? yield ['attention', 4 * batch * tokens * heads * blocks * (2 + headDim)] : undefined;
    }
    case 'sample_token':
      return w && (yield ['a', 4 * numelOf(x!.shape)]);
    case 'layer_norm':
    case 'rms_norm':
      yield ['a', 4 * columns(x!)];
      return yield ['b', 4 * columns(x!)];
    case 'layer_norm_backward':
    case 'rms_norm_backward': {
      yield ['a', 4 * columns(x!)];
      // At most 12 blocks on each of 132 multiprocessors, whatever the device (native/norm_backward.cuh).
      const groups = Math.min(132 * 12, Math.ceil(rows(x!) / 4));
      return yield ['c', 4 * groups * (op === 'layer_norm_backward' ? 2 : 1) * columns(x!)];
    }
    case 'head_norm_backward':
      return yield ['c', 4 * Math.min(264, rows(x!)) * 2 * attrs[2]!];
    case 'column_sum':
      return yield ['a', columnSums(rows(x!), columns(x!))];
    case 'embedding_backward': {
      const ids = roundUp(numelOf(inputs[1]!.shape), 64);
      yield ['a', 16 * ids];
      yield ['b', 8 * Math.ceil(ids / 32) * columns(x!)];
      return yield ['c', 16 * ids + MiB];
    }
    case 'route': {
      const assignments = roundUp(numelOf(outputs[1]!.shape), 64);
      yield ['a', 8 * assignments];
      return yield ['c', 16 * assignments + MiB];
    }
    case 'router_load':
      return yield ['a', 4 * (Math.ceil(rows(x!) / 256) * columns(x!) + 1)];
    case 'sum_squares':
      return yield ['a', 8 * (1.01 * Math.ceil(numelOf(x!.shape) / 4096) + 3)];
  }
}

const products = new Set([
  ...['linear', 'linear_add', 'linear_dx', 'linear_dw', 'linear_gelu', 'linear_gelu_backward', 'matmul', 'fp8_matmul'],
  ...['linear_cross_entropy', 'linear_cross_entropy_backward', 'linear_cross_entropy_fused'],
]);

/** native/head_products.cuh: logits by chunks of rows, and their gradient where it has another dtype. */
function* head(x: View, w: View, withGradient: boolean): Generator<ScratchRequest> {
  const [n, stride] = [rows(x), roundUp(w.shape[0]!, 64)];
  const inF32 = x.dtype === 'f32' || n * stride * 4 <= 64 * MiB;
  const rowBytes = stride * (inF32 ? 4 : 2);
  let most = Math.floor((544 * MiB) / rowBytes);
  if (most < 4096) most = Math.min(4096, Math.floor((1100 * MiB) / rowBytes));
  most = most < 256 ? 256 : Math.floor(most / 256) * 256;
  const chunks = Math.ceil(n / most);
  const chunk = chunks <= 1 ? n : Math.min(roundUp(Math.ceil(n / chunks), 256), most);
  yield ['a', chunk * rowBytes + 16];
  if (withGradient && inF32 && x.dtype !== 'f32') yield ['d', chunk * stride * bytesOf(x.dtype) + 16];
  yield ['b', 4 * (n + 1)];
}

/** native/ops/column_sum.cu: a line of sums for every chunk of rows. */
function columnSums(rows: number, columns: number): number {
  let chunk = 64;
  while (chunk < 1024 && Math.ceil(rows / chunk) * Math.ceil(columns / 256) > 528) chunk *= 2;
  return 4 * Math.ceil(rows / chunk) * columns;
}

/** native/ops/gelu_backward_sums.cu: a line of sums for every block of rows. */
function geluSums(x: View): number {
  const n = 16 / bytesOf(x.dtype);
  const vectors = columns(x) % n === 0 ? columns(x) / n : columns(x);
  const tiles = Math.ceil(vectors / 384);
  const lines = (132 * Math.floor(1152 / roundUp(Math.ceil(vectors / tiles), 32))) / tiles;
  return 4 * Math.max(1, Math.min(Math.floor(lines), rows(x))) * columns(x);
}

/** The gradient of q in f32 and two numbers a row: ours for Hopper takes it, and so does cuDNN's repeatable form. */
function* attentionBackward({ shape }: View, [heads = 1, , d = 1]: readonly number[]): Generator<ScratchRequest> {
  const [batch = 1, tokens = 1] = shape;
  const padded = roundUp(tokens, 128) * heads * batch;
  yield ['attention', padded * (4 * d + 12) + MiB];
}

function adjacent(views: readonly View[]): boolean {
  return views.every((view, i) => {
    const before = views[i - 1];
    return !before || (view.handle === before.handle && view.byteOffset === before.byteOffset + bytesOfAll([before]));
  });
}

function bytesOfAll(views: readonly View[]): number {
  return views.reduce((sum, { shape, dtype }) => sum + numelOf(shape) * bytesOf(dtype), 0);
}

function columns({ shape }: View): number {
  return shape.at(-1) ?? 1;
}

function rows(view: View): number {
  return numelOf(view.shape) / Math.max(1, columns(view));
}

function roundUp(n: number, to: number): number {
  return Math.ceil(n / to) * to;
}

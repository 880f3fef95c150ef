import { availableParallelism } from 'node:os';
import { bytesOf, type DType, isFloat, type MemoryModel, numelOf, type ScratchRequest, type View } from '@deepspeed-ts/core';
import type { InstructionSet } from './native.js';

const MiB = 2 ** 20;

/** Ops that core composes of others here: there is no kernel. */
const absent = new Set([
  ...['fp8_advance', 'fp8_cast', 'fp8_matmul', 'fp8_swiglu', 'fp8_swiglu_backward', 'linear_fp8', 'lora', 'mlp', 'mlp_fp8'],
  ...['gelu_backward_recompute', 'swiglu_backward_recompute', 'geglu_backward_recompute', 'linear_gelu', 'linear_gelu_backward'],
  ...['linear_cross_entropy_fused', 'linear_cross_entropy_fused_backward', 'experts'],
]);

const onlyF32 = new Set(['grad_norm', 'load_balance', 'load_balance_backward']);

export interface CpuMemoryModelOptions {
  /** That kernels use; default: the CPUs of this process. */
  readonly threads?: number;
  /** Default: the one that takes most. */
  readonly instructionSet?: InstructionSet;
}

/** The register tile of an instruction set, [mr, nr], and the packed block of A, [mc, kc] (native/gemm_pack.h). */
interface Tile {
  readonly mr: number;
  readonly nr: number;
  readonly mc: number;
  readonly kc: number;
}

const tiles: Readonly<Record<InstructionSet, Tile>> = {
  baseline: { mr: 4, nr: 8, mc: 64, kc: 256 },
  avx2: { mr: 6, nr: 16, mc: 96, kc: 256 },
  avx512: { mr: 14, nr: 32, mc: 168, kc: 768 },
};

/** What the CPU backend takes beside tensors: the arenas of native/allocator.cc and the scratch memory of native/ops. */
export function cpuMemoryModel(options: CpuMemoryModelOptions = {}): MemoryModel {
  const threads = options.threads ?? availableParallelism();
  const scratch = new CpuScratch(threads, tiles[options.instructionSet ?? 'avx512']);
  const small = { block: 64, step: 2 * MiB, least: 4 * MiB, joins: false };
  const large = { ...small, least: 32 * MiB };
  return {
    name: 'cpu',
    supports: (op: string, dtypes: readonly DType[]) =>
      !absent.has(op) && (!onlyF32.has(op) || dtypes.every((d) => !isFloat(d) || d === 'f32')),
    scratch: (op, inputs, outputs, attrs) => scratch.of(op, inputs, outputs, attrs),
    scratchBlock: (bytes) => roundUp(Math.max(bytes, 1), bytes >= 2 * MiB ? 2 * MiB : 4096),
    heaps: [small, large, small, large],
    heapOf: (bytes, shared) => (shared ? 2 : 0) + Number(roundUp(bytes, 64) > 256 * 1024),
    hostApart: false,
    fixed: () => ({}),
    // Node.js with this library loaded, its heap and the addon's thread stacks.
    host: () => ({ process: 120 * MiB }),
  };
}

/** Bytes by slot; names are worker (all for the one that a call shares) and number, as in native/scratch.h. */
class CpuScratch {
  constructor(
    readonly threads: number,
    readonly tile: Tile,
  ) {}

  *of(op: string, inputs: readonly View[], outputs: readonly View[], attrs: readonly number[]): Generator<ScratchRequest> {
    const [x, w] = inputs;
    switch (op) {
      case 'linear':
        yield* this.#product(rows(x!), columns(outputs[0]!), columns(x!), outputs[0]!.dtype === 'f32');
        if (attrs[1]) yield ['all.1', 4 * (columns(outputs[0]!) + this.tile.nr)];
        return;
      case 'linear_dx': {
        const depth = inputs.slice(1).reduce((sum, { shape }) => sum + shape[attrs[1] ? 1 : 0]!, 0);
        return yield* this.#product(rows(x!), columns(outputs[0]!), depth, outputs[0]!.dtype === 'f32');
      }
      case 'linear_add':
        return yield* this.#product(rows(x!), w!.shape[0]!, columns(x!), outputs[0]!.dtype === 'f32');
      case 'linear_dw':
        for (const dw of outputs) {
          const [first = 1, second = 1] = dw.shape;
          yield* this.#product(first, second, rows(x!), dw.dtype === 'f32');
        }
        return;
      case 'expert_linear':
      case 'expert_linear_dx':
        // How many rows an expert has is known on the device alone: at most all of them.
        if (attrs[1]) yield ['all.4', bytesOf(x!.dtype) * (rows(outputs[0]!) * columns(x!) + 1)];
        return yield* this.#product(rows(outputs[0]!), columns(outputs[0]!), columns(x!), outputs[0]!.dtype === 'f32');
      case 'expert_linear_dw': {
        const places = numelOf(inputs[2]!.shape);
        if (attrs[2]) yield ['all.4', bytesOf(x!.dtype) * (places * columns(x!) + 1)];
        if (attrs[3]) yield ['all.5', bytesOf(w!.dtype) * (places * columns(w!) + 1)];
        const [first = 1, second = 1] = outputs[0]!.shape;
        return yield* this.#product(first, second, places, outputs[0]!.dtype === 'f32');
      }
      case 'router_load':
        return yield ['all.0', 4 * (Math.ceil(rows(x!) / 256) * columns(x!) + 1)];
      case 'matmul':
        return yield* this.#product(rows(outputs[0]!), columns(outputs[0]!), columns(x!), outputs[0]!.dtype === 'f32');
      case 'linear_cross_entropy':
        return yield* this.#head(x!, w!, false, true);
      case 'linear_cross_entropy_backward':
        return yield* this.#head(w!, inputs[2]!, true, (outputs[1]?.dtype ?? 'f32') === 'f32');
      case 'attention':
        return yield* this.#attention(x!, attrs, false);
      case 'attention_backward':
        return yield* this.#attention(w!, attrs, true);
      case 'cached_attention':
        return yield* this.#cachedAttention(x!, attrs);
      case 'sample_token':
        return w && (yield* this.#each(0, 4 * (columns(x!) + 16), rows(x!)));
      case 'layer_norm':
      case 'rms_norm':
        yield ['all.0', 4 * columns(x!)];
        return yield ['all.1', 4 * columns(x!)];
      case 'layer_norm_backward':
      case 'rms_norm_backward':
        yield ['all.0', 4 * columns(x!)];
        return yield ['all.1', 4 * (Math.min(64, Math.ceil(rows(x!) / 16)) * (op === 'layer_norm_backward' ? 2 : 1) * columns(x!) + 1)];
      case 'head_norm':
      case 'head_norm_backward': {
        const d = attrs[2]!;
        yield ['all.0', 4 * d];
        yield ['all.2', 4 * d];
        if (op === 'head_norm_backward') yield ['all.1', 4 * (Math.min(64, Math.ceil(rows(x!) / 16)) * 2 * d + 1)];
        return;
      }
      case 'softmax':
      case 'softmax_backward':
        return yield ['all.0', 4 * (this.threads * columns(x!) + 1)];
      case 'embedding_backward': {
        const ids = numelOf(inputs[1]!.shape);
        yield ['all.0', 8 * ids];
        yield ['all.1', 8 * ids];
        return yield ['all.2', 8 * (ids + 1)];
      }
      case 'sum_squares':
        return yield ['all.0', 8 * (Math.ceil(numelOf(x!.shape) / 4096) + 1)];
    }
  }

  /** native/gemm.h: all of B or a part of 16 MiB, packed; and for each thread a block of A and the sums of a group of columns. */
  *#product(m: number, n: number, k: number, f32: boolean): Generator<ScratchRequest> {
    const { nr, mc, kc } = this.tile;
    const packedA = mc * (kc + 32) + nr;
    const slivers = Math.ceil(n / nr);
    if (m * n * k < 64 ** 3) {
      const group = f32 ? slivers : Math.min(slivers, 512 / nr);
      return yield* this.#each(0, 4 * (k * slivers * nr + packedA + mc * group * nr));
    }
    const packedB = 4 * MiB;
    const wide = k * slivers * nr <= packedB ? n : Math.min(n, Math.max(256, Math.floor(packedB / Math.max(1, k) / nr) * nr));
    yield ['all.0', 4 * k * roundUp(wide, nr)];
    const columns = f32 ? wide : Math.min(wide, 512);
    yield* this.#each(0, 4 * (packedA + mc * roundUp(columns + 2 * nr, nr)));
  }

  /** native/ops/linear_cross_entropy.cc: logits by blocks. */
  *#head(x: View, w: View, backward: boolean, f32Weights: boolean): Generator<ScratchRequest> {
    const [n, c, v] = [rows(x), columns(x), w.shape[0]!];
    const blockColumns = Math.min(2048, v);
    const blockRows = Math.min(Math.max(1, n), Math.max(64, Math.floor((2 * MiB) / blockColumns)));
    yield ['all.2', 4 * blockRows * blockColumns];
    yield* this.#product(blockRows, blockColumns, c, true);
    if (!backward) return yield ['all.3', 16 * blockRows];
    yield* this.#product(blockRows, c, blockColumns, x.dtype === 'f32');
    yield* this.#product(blockColumns, c, blockRows, f32Weights);
    if (x.dtype !== 'f32' && blockColumns < v) yield ['all.4', 4 * n * c];
    if (!f32Weights && blockRows < n) yield ['all.5', 4 * blockColumns * c];
  }

  /** native/ops/attention.cc: a head's keys and values in f32, and blocks of scores. */
  *#attention({ shape }: View, [heads = 1, kvHeads = 1, d = 1]: readonly number[], backward: boolean): Generator<ScratchRequest> {
    const { mr, nr } = this.tile;
    const [batch = 1, length = 1] = shape;
    const row = (Math.ceil(d / 16) | 1) * 16;
    const byColumns = Math.ceil(length / nr) * d * nr;
    const byRows = length * row + nr;
    const [queries, scores] = [(backward ? 8 : 4) * mr, 256 + 16];
    if (backward) {
      const block = queries * (2 * scores + 3 * row + 2) + 3 * nr + 3 * scores;
      return yield* this.#each(0, 4 * (2 * byColumns + 3 * byRows + block), batch * kvHeads);
    }
    const room = queries * (scores + 2 * row) + 2 * scores;
    const alone = batch * kvHeads >= 8 * this.threads;
    if (!alone) yield ['all.0', 4 * (byColumns + byRows)];
    yield* this.#each(
      0,
      4 * (room + (alone ? byColumns + byRows : 0)),
      alone ? batch * kvHeads : (heads / kvHeads) * Math.ceil(length / queries),
    );
  }

  /** native/ops/cached_attention.cc: of blocks of 256 keys the maxima, sums and sums of values. */
  *#cachedAttention({ shape }: View, [heads = 1, kvHeads = 1, d = 1, length = 0]: readonly number[]): Generator<ScratchRequest> {
    const [batch = 1, tokens = 1] = shape;
    const [group, row, tasks] = [heads / kvHeads, roundUp(d, 16), batch * kvHeads * tokens];
    const [blocks, partial] = [Math.ceil((length + tokens) / 256), group * (2 + row)];
    const shared = blocks > 1 && tasks < 4 * this.threads;
    if (shared) yield ['all.0', 4 * tasks * blocks * partial];
    yield* this.#each(0, 4 * (group * (row + 256) + (shared ? 0 : 2 * partial)), shared ? tasks * blocks : tasks);
  }

  *#each(slot: number, bytes: number, tasks = this.threads): Generator<ScratchRequest> {
    for (let worker = 0; worker < Math.min(this.threads, tasks); worker++) yield [`${worker}.${slot}`, bytes];
  }
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

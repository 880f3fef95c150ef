import type { DType } from '../dtype.js';
import { cast } from '../ops/cast.js';
import { launch } from '../ops/launch.js';
import { QUANTIZED_BLOCK } from '../ops/quantized-format.js';
import { empty } from '../tensor/create.js';
import type { Device } from '../tensor/device.js';
import { scope } from '../tensor/scope.js';
import type { Tensor } from '../tensor/tensor.js';
import { Quantized } from './quantized.js';
import type { WeightSource } from './weight-source.js';

/** Memory, of any float dtype or of codes, and what it is to hold: elements of a parameter from `start` on. */
export interface WeightPart {
  readonly name: string;
  readonly start: number;
  readonly target: Tensor | Quantized;
}

/** Reads under way at a time: what keeps a disk busy, and more threads than Node has for files gain nothing. */
const LANES = 4;
/** Elements of a read at most: large enough that its fixed costs vanish, small enough that those under way hold little. */
const BLOCK = 2 ** 22;

interface Block {
  readonly part: WeightPart;
  /** From the beginning of the part. */
  readonly at: number;
  readonly count: number;
}

/**
 * Fills memory of one device from a source. What is stored in the dtype that is wanted is read into its place; other dtypes, and what
 * becomes codes, pass through memory of the device beside it, at most as much as the largest of the parts takes, and are cast there.
 *
 * @throws what the source throws; the memory holds some of the values then
 */
export async function readWeights(source: WeightSource, parts: readonly WeightPart[]): Promise<void> {
  const [first] = parts;
  if (!first || deviceOf(first.target).backend.dry) return;
  const { backend } = deviceOf(first.target);
  const largest = parts.reduce((most, { target }) => Math.max(most, target.numel), 0);
  const blocks = blocksOf(parts, Math.min(BLOCK, Math.ceil(largest / LANES)));
  // Reads are no part of the stream: what was queued on this memory, or on what was there before it, comes first.
  await backend.synchronize();
  let failed = false;
  const lanes = Array.from({ length: LANES }, async () => {
    const lane = new Lane(source);
    try {
      for (let next = blocks.next(); !next.done && !failed; next = blocks.next()) await lane.read(next.value);
    } catch (error) {
      failed = true;
      throw error;
    } finally {
      lane.dispose();
    }
  });
  // All of them have ended before the memory may be given back.
  for (const end of await Promise.allSettled(lanes)) if (end.status === 'rejected') throw end.reason;
}

function* blocksOf(parts: readonly WeightPart[], most: number): Generator<Block> {
  for (const part of parts) {
    // Codes come in whole blocks of their own.
    const step = part.target instanceof Quantized ? roundUp(most, QUANTIZED_BLOCK) : most;
    for (let at = 0; at < part.target.numel; at += step) yield { part, at, count: Math.min(step, part.target.numel - at) };
  }
}

/** Reads one block after the other. */
class Lane {
  /** Where values lie until they are cast; flat. */
  #stage: Tensor | undefined;

  constructor(readonly source: WeightSource) {}

  async read({ part: { name, start, target }, at, count }: Block): Promise<void> {
    const stored = this.source.dtypeOf(name);
    const device = deviceOf(target);
    const wanted = target instanceof Quantized ? target.narrow(at, count) : flat(target, at, count);
    const stage = wanted instanceof Quantized || stored !== wanted.dtype ? this.#stageOf(device, stored, count) : undefined;
    try {
      await this.source.read(name, start + at, stage ?? (wanted as Tensor));
      if (!stage) return;
      if (wanted instanceof Quantized) wanted.set(stage);
      else launch(cast, [stage], [wanted], {});
      // The next block comes into the same memory.
      await device.backend.synchronize();
    } finally {
      stage?.dispose();
      wanted.dispose();
    }
  }

  dispose(): void {
    this.#stage?.dispose();
    this.#stage = undefined;
  }

  #stageOf(device: Device, dtype: DType, count: number): Tensor {
    if (this.#stage?.dtype !== dtype || this.#stage.numel < count) {
      this.dispose();
      this.#stage = empty(device, [count], dtype, { kind: 'data' }).keep();
    }
    return this.#stage.narrow(0, count).keep();
  }
}

function deviceOf(target: Tensor | Quantized): Device {
  return target instanceof Quantized ? target.codes.device : target.device;
}

function roundUp(n: number, multiple: number): number {
  return Math.ceil(n / multiple) * multiple;
}

/** A view of elements, whatever the shape. The caller's. */
function flat(tensor: Tensor, start: number, count: number): Tensor {
  return scope(() => tensor.view([-1]).narrow(start, count)).keep();
}

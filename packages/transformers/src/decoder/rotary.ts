import { type Device, empty, type Tensor, tensor } from '@deepspeed-ts/core';
import { type RopeScaling, rotaryFrequencies, spanOf } from './rope-scaling.js';

/** How positions turn the heads of a layer (Su et al., arXiv:2104.09864). */
export interface RotaryConfig {
  readonly theta: number;
  /** Elements of each head that turn, the first ones; even. */
  readonly dim: number;
  /** Positions that the model was made for. */
  readonly maxPositions: number;
  readonly scaling: RopeScaling;
}

interface Table {
  readonly cos: Tensor;
  readonly sin: Tensor;
  readonly positions: number;
  readonly span: number;
}

/** Fewest rows of a table: sequences that grow do not need a new one at each step. */
const LEAST = 1024;

/**
 * cos and sin f32 [positions, dim / 2] of position * frequency. Made for each device when needed, for as many positions as needed;
 * its owner disposes it.
 */
export class RotaryTable {
  readonly #tables = new Map<Device, Table>();

  constructor(readonly config: RotaryConfig) {}

  /** For sequences of `length` positions: some scalings turn otherwise in longer ones. Borrowed until the next call. */
  on(device: Device, length: number): { readonly cos: Tensor; readonly sin: Tensor } {
    const span = spanOf(this.config, length);
    const kept = this.#tables.get(device);
    if (kept && kept.positions >= length && kept.span === span) return kept;
    kept?.cos.dispose();
    kept?.sin.dispose();
    const positions = this.#rows(length);
    const { frequencies, factor } = rotaryFrequencies(this.config, length);
    const shape = [positions, frequencies.length];
    const angles = device.backend.dry ? undefined : anglesOf(frequencies, positions);
    const made = (of: (angle: number) => number) =>
      (angles
        ? tensor(
            device,
            Float64Array.from(angles, (angle) => factor * of(angle)),
            'f32',
            shape,
            { kind: 'data' },
          )
        : empty(device, shape, 'f32', { kind: 'data' })
      ).keep();
    const table = { cos: made(Math.cos), sin: made(Math.sin), positions, span };
    this.#tables.set(device, table);
    return table;
  }

  dispose(): void {
    for (const { cos, sin } of this.#tables.values()) {
      cos.dispose();
      sin.dispose();
    }
    this.#tables.clear();
  }

  /** Rows in powers of two, so that longer and longer sequences cost few tables; no more than the model has positions, if those do. */
  #rows(length: number): number {
    const rows = Math.max(LEAST, 2 ** Math.ceil(Math.log2(length)));
    return length <= this.config.maxPositions ? Math.min(rows, this.config.maxPositions) : rows;
  }
}

/** In f32 as the reference implementations compute them. */
function anglesOf(frequencies: Float32Array, positions: number): Float32Array {
  const half = frequencies.length;
  return Float32Array.from({ length: positions * half }, (_, i) => Math.floor(i / half) * frequencies[i % half]!);
}

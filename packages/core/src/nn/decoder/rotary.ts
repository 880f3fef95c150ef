import { tensor } from '../../tensor/create.js';
import type { Device } from '../../tensor/device.js';
import type { Tensor } from '../../tensor/tensor.js';

/** cos and sin f32 [positions, headDim / 2] of position * theta^(-2i / headDim). Made once for each device; its owner disposes it. */
export class RotaryTable {
  #tables = new Map<Device, { cos: Tensor; sin: Tensor }>();

  constructor(
    readonly theta: number,
    readonly headDim: number,
    readonly positions: number,
  ) {}

  on(device: Device): { cos: Tensor; sin: Tensor } {
    let table = this.#tables.get(device);
    if (!table) {
      const half = this.headDim / 2;
      const shape = [this.positions, half];
      // Angles in f32 as the reference implementations compute them, cosines of that.
      const angles = Float32Array.from({ length: this.positions * half }, (_, i) => {
        const frequency = Math.fround(1 / Math.fround(this.theta ** ((2 * (i % half)) / this.headDim)));
        return Math.floor(i / half) * frequency;
      });
      table = {
        cos: tensor(device, Float64Array.from(angles, Math.cos), 'f32', shape, { kind: 'data' }).keep(),
        sin: tensor(device, Float64Array.from(angles, Math.sin), 'f32', shape, { kind: 'data' }).keep(),
      };
      this.#tables.set(device, table);
    }
    return table;
  }

  dispose(): void {
    for (const { cos, sin } of this.#tables.values()) {
      cos.dispose();
      sin.dispose();
    }
    this.#tables.clear();
  }
}

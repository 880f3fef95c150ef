import { type Device, empty, type Tensor, tensor } from '@deepspeed-ts/core';

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
      const angles = device.backend.dry ? undefined : this.#angles();
      const shape = [this.positions, this.headDim / 2];
      const made = (of: (angle: number) => number) =>
        (angles
          ? tensor(device, Float64Array.from(angles, of), 'f32', shape, { kind: 'data' })
          : empty(device, shape, 'f32', { kind: 'data' })
        ).keep();
      table = { cos: made(Math.cos), sin: made(Math.sin) };
      this.#tables.set(device, table);
    }
    return table;
  }

  /** In f32 as the reference implementations compute them. */
  #angles(): Float32Array {
    const half = this.headDim / 2;
    return Float32Array.from({ length: this.positions * half }, (_, i) => {
      const frequency = Math.fround(1 / Math.fround(this.theta ** ((2 * (i % half)) / this.headDim)));
      return Math.floor(i / half) * frequency;
    });
  }

  dispose(): void {
    for (const { cos, sin } of this.#tables.values()) {
      cos.dispose();
      sin.dispose();
    }
    this.#tables.clear();
  }
}

import { tensor } from '../../tensor/create.js';
import type { Device } from '../../tensor/device.js';
import type { Tensor } from '../../tensor/tensor.js';

/** Positions 0 .. tokens - 1 of every sequence, i32 [batch, tokens]. The last shape on each device is kept; its owner disposes it. */
export class PositionIds {
  readonly #kept = new Map<Device, Tensor>();

  on(device: Device, batch: number, tokens: number): Tensor {
    const kept = this.#kept.get(device);
    if (kept && kept.shape[0] === batch && kept.shape[1] === tokens) return kept;
    kept?.dispose();
    const values = Int32Array.from({ length: batch * tokens }, (_, i) => i % tokens);
    const ids = tensor(device, values, 'i32', [batch, tokens], { kind: 'data' }).keep();
    this.#kept.set(device, ids);
    return ids;
  }

  dispose(): void {
    for (const ids of this.#kept.values()) ids.dispose();
    this.#kept.clear();
  }
}

import { copy } from '../ops/copy.js';
import { launch } from '../ops/launch.js';
import { empty } from '../tensor/create.js';
import { unscoped } from '../tensor/scope.js';
import type { Tensor } from '../tensor/tensor.js';

/**
 * A tensor that waits for its use, where it is or in host memory. Copies run in stream order and beside JavaScript, on a GPU to and from
 * pages that it reaches itself: nobody waits for them.
 */
export class Parked {
  #tensor: Tensor | undefined;
  readonly #away: boolean;

  /** The caller keeps `tensor` and may dispose it. */
  constructor(tensor: Tensor, onHost: boolean) {
    this.#away = onHost && tensor.numel > 0;
    if (this.#away) {
      const { device, shape, dtype } = tensor;
      const host = unscoped(() => empty(device, shape, dtype, { kind: 'host', host: true }));
      launch(copy, [tensor], [host], {});
      this.#tensor = host;
    } else this.#tensor = tensor.retain();
  }

  /** Back on the device, without gradient history. Belongs to the scope of the caller. */
  fetch(): Tensor {
    const tensor = this.#tensor!;
    if (!this.#away) return tensor.view(tensor.shape);
    const back = empty(tensor.device, tensor.shape, tensor.dtype);
    launch(copy, [tensor], [back], {});
    return back;
  }

  /** May be called again. */
  dispose(): void {
    this.#tensor?.dispose();
    this.#tensor = undefined;
  }
}

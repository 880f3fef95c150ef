import { accumulate, bytesOf, LocalStore, launch, matmul, noGrad, scope, type Tensor } from '@deepspeed-ts/core';
import { PeftError } from './errors.js';
import type { AdaptedLayer } from './peft-model.js';

interface Kept extends AdaptedLayer {
  /** The weight before the adapter was added, as its device holds it. */
  readonly before: Uint8Array | undefined;
}

/** Adapters that have become part of the weights. */
export class Merge {
  private constructor(private readonly layers: readonly Kept[]) {}

  /**
   * W += scale B A, on the device that holds W.
   *
   * @throws PeftError, before anything has changed, where a weight can't be written
   */
  static async into(adapters: ReadonlyMap<string, AdaptedLayer>, { keep }: { keep: boolean }): Promise<Merge> {
    for (const [name, { layer }] of adapters) assertWritable(name, layer);
    const layers: Kept[] = [];
    for (const { layer, adapter } of adapters.values()) {
      const weight = layer.weight.use();
      const before = keep
        ? await weight.device.backend.read(weight.handle, weight.byteOffset, weight.numel * bytesOf(weight.dtype))
        : undefined;
      scope(() => launch(accumulate, [updateOf({ layer, adapter })], [weight], { alpha: adapter.scale }));
      layer.weight.done();
      layer.adapter = undefined;
      layers.push({ layer, adapter, before });
    }
    return new Merge(layers);
  }

  /** Puts the weights back, and the adapters beside them. */
  undo(): void {
    for (const { layer, adapter, before } of this.layers) {
      const weight = layer.weight.use();
      weight.device.backend.write(weight.handle, weight.byteOffset, before!);
      layer.weight.done();
      layer.adapter = adapter;
    }
  }
}

/** B A [O, I], or [I, O] as the layer's weight lies. */
function updateOf({ layer, adapter: { a, b } }: AdaptedLayer): Tensor {
  return noGrad(() => (layer.layout === 'out_in' ? matmul(b, a) : matmul(a, b, { transA: true, transB: true })));
}

function assertWritable(name: string, { weight }: AdaptedLayer['layer']): void {
  if (!weight.isStored || !(weight.store instanceof LocalStore))
    throw new PeftError(
      'ERR_PEFT_STATE',
      `merge: ${name} is on no device of its own; load the base model with { device } and the adapters onto it`,
    );
  if (weight.storage)
    throw new PeftError(
      'ERR_PEFT_STATE',
      `merge: ${name} is kept as ${weight.storage} codes; load the base model without quantization, and the adapters onto it`,
    );
}

import type { QuantizedFormat } from '../ops/quantized-format.js';
import { Embedding, Linear } from './layers.js';
import { type Module, namedModules } from './module.js';
import { Parameter } from './parameter.js';

/**
 * Freezes the matrices of a model's blocks and says that whoever stores them is to keep them as codes, a half or a quarter of the bytes
 * of bf16: weights of linear layers and experts. Embeddings, head, norms and biases stay as they are, and so does what has a format already. To be
 * called before the model has a store; adapters beside the layers are trained as always.
 */
export function quantizeWeights(model: Module, format: QuantizedFormat): void {
  for (const [, module] of namedModules(model)) {
    if (module instanceof Embedding || module.keepsPrecision || (module instanceof Linear && module.isUnit)) continue;
    const own = module instanceof Linear ? [module.weight] : [...module.children()].map(([, child]) => child);
    for (const child of own) {
      if (!(child instanceof Parameter) || child.shape.length < 2) continue;
      child.requiresGrad = false;
      child.storage ??= format;
    }
  }
}

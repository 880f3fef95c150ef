import { embedding, type Fp8Layer, type LinearLayout, layerNorm, linear, linearFp8, rmsNorm } from '../ops/index.js';
import type { Tensor } from '../tensor/tensor.js';
import { type Initializer, init } from './init.js';
import { Module } from './module.js';
import { Parameter } from './parameter.js';

export interface LinearOptions {
  readonly bias?: boolean;
  /** How the weight is stored; default 'out_in', torch's. GPT-2 stores 'in_out'. */
  readonly layout?: LinearLayout;
  /** Default: uniform in ±1/sqrt(inputs), torch's. */
  readonly init?: Initializer;
}

/** y = x W' + b over the last axis. */
export class Linear extends Module<[Tensor], Tensor> {
  readonly weight: Parameter;
  readonly bias?: Parameter;
  readonly layout: LinearLayout;
  /** Set while the layer trains in 8 bits; see `Fp8Training`. */
  fp8: Fp8Layer | undefined;

  constructor(inputs: number, outputs: number, options: LinearOptions = {}) {
    super();
    const bound = inputs > 0 ? 1 / Math.sqrt(inputs) : 0;
    this.layout = options.layout ?? 'out_in';
    this.weight = new Parameter(
      this.layout === 'out_in' ? [outputs, inputs] : [inputs, outputs],
      options.init ?? init.uniform(-bound, bound),
    );
    // Weights that begin otherwise (transformers') have biases that begin at zero.
    if (options.bias ?? true) this.bias = new Parameter([outputs], options.init ? init.constant(0) : init.uniform(-bound, bound));
  }

  forward(x: Tensor): Tensor {
    return fusedLinear(x, [this]);
  }
}

/** Several linear maps of one input, their outputs side by side: one launch, no concatenation. All with a bias or none. */
export function fusedLinear(x: Tensor, layers: readonly Linear[]): Tensor {
  const biases = layers.flatMap(({ bias }) => (bias ? [bias] : []));
  const weights = layers.map(({ weight }) => weight);
  const [{ layout, fp8 }] = layers as readonly [Linear];
  const inEightBits = fp8 && layers.every((layer) => layer.fp8) && (layout === 'out_in' || layers.length === 1);
  return inEightBits ? linearFp8(x, weights, biases, layout, fp8) : linear(x, weights, biases, layout);
}

/** Rows of a table by id. A unit of its own: the table is often the largest parameter, and used at both ends of the model. */
export class Embedding extends Module<[Tensor], Tensor> {
  override readonly isUnit: boolean = true;
  readonly weight: Parameter;

  constructor(vocabulary: number, size: number, initializer: Initializer = init.normal(1)) {
    super();
    this.weight = new Parameter([vocabulary, size], initializer);
  }

  forward(ids: Tensor): Tensor {
    return embedding(this.weight, ids);
  }
}

/** Layer normalisation of x, or of x + residual; gives the normalised value and the sum. */
export class LayerNorm extends Module<[Tensor, Tensor?], { y: Tensor; sum: Tensor }> {
  readonly weight: Parameter;
  readonly bias: Parameter;

  constructor(
    size: number,
    readonly eps = 1e-5,
  ) {
    super();
    this.weight = new Parameter([size], init.constant(1));
    this.bias = new Parameter([size], init.constant(0));
  }

  forward(x: Tensor, residual?: Tensor): { y: Tensor; sum: Tensor } {
    if (residual) return layerNorm(x, this.weight, this.bias, { eps: this.eps, residual });
    return { y: layerNorm(x, this.weight, this.bias, { eps: this.eps }).y, sum: x };
  }
}

/** Root-mean-square normalisation of x, or of x + residual; gives the normalised value and the sum. */
export class RMSNorm extends Module<[Tensor, Tensor?], { y: Tensor; sum: Tensor }> {
  readonly weight: Parameter;

  constructor(
    size: number,
    readonly eps = 1e-6,
  ) {
    super();
    this.weight = new Parameter([size], init.constant(1));
  }

  forward(x: Tensor, residual?: Tensor): { y: Tensor; sum: Tensor } {
    if (residual) return rmsNorm(x, this.weight, { eps: this.eps, residual });
    return { y: rmsNorm(x, this.weight, { eps: this.eps }).y, sum: x };
  }
}

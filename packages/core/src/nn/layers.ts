import { embedding, type Fp8Layer, type LinearLayout, layerNorm, linear, linearFp8, lora, rmsNorm } from '../ops/index.js';
import type { Tensor } from '../tensor/tensor.js';
import { type Initializer, init } from './init.js';
import { type Child, Module } from './module.js';
import { Parameter } from './parameter.js';

export interface LinearOptions {
  readonly bias?: boolean;
  /** How the weight is stored; default 'out_in', torch's. GPT-2 stores 'in_out'. */
  readonly layout?: LinearLayout;
  /** Default: uniform in ±1/sqrt(inputs), torch's. */
  readonly init?: Initializer;
}

/** A low-rank update of a linear layer: scale B A beside its weight (Hu et al., arXiv:2106.09685). */
export interface LoraAdapter {
  /** [rank, inputs] and [outputs, rank], however the layer's own weight is stored. */
  readonly a: Parameter;
  readonly b: Parameter;
  readonly scale: number;
  /** Probability with which elements of its input are dropped, in training. */
  readonly dropout: number;
}

/** y = x W' + b over the last axis. */
export class Linear extends Module<[Tensor], Tensor> {
  readonly weight: Parameter;
  readonly bias?: Parameter;
  readonly layout: LinearLayout;
  /** Set while the layer trains in 8 bits; see `Fp8Training`. */
  fp8: Fp8Layer | undefined;
  /** Set while the layer has one. Its parameters are the layer's, named as PEFT names them. */
  adapter: LoraAdapter | undefined;

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

  override *children(): Iterable<readonly [string, Child]> {
    yield ['weight', this.weight];
    if (this.bias) yield ['bias', this.bias];
    if (this.adapter) yield* [['lora_A.weight', this.adapter.a] as const, ['lora_B.weight', this.adapter.b] as const];
  }

  get outputs(): number {
    return this.weight.shape[this.layout === 'out_in' ? 0 : 1]!;
  }

  get inputs(): number {
    return this.weight.shape[this.layout === 'out_in' ? 1 : 0]!;
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
  let y = inEightBits ? linearFp8(x, weights, biases, layout, fp8) : linear(x, weights, biases, layout);
  let columnOffset = 0;
  for (const { adapter, outputs } of layers) {
    if (adapter) y = lora(y, x, { ...adapter, columnOffset });
    columnOffset += outputs;
  }
  return y;
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
    /** Added to the weights, which then begin at 1 less. */
    readonly offset = 0,
  ) {
    super();
    this.weight = new Parameter([size], init.constant(1 - offset));
  }

  forward(x: Tensor, residual?: Tensor): { y: Tensor; sum: Tensor } {
    const { eps, offset } = this;
    if (residual) return rmsNorm(x, this.weight, { eps, offset, residual });
    return { y: rmsNorm(x, this.weight, { eps, offset }).y, sum: x };
  }
}

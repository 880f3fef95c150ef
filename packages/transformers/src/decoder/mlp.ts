import { activate, type Child, dropout, fusedLinear, init, isGated, Linear, Module, mlp, mlpFp8, type Tensor } from '@deepspeed-ts/core';
import type { DecoderConfig } from './config.js';

/** The feed-forward part: an activation between two maps, or of a gate that multiplies a third. */
export class MLP extends Module<[Tensor], Tensor> {
  readonly #config: DecoderConfig;
  readonly #in: Linear[];
  readonly #out: Linear;

  constructor(config: DecoderConfig) {
    super();
    const { dim, mlpDim, layout, initStd, residualInitStd, names, mlpBias: bias } = config;
    const columns = isGated(config.mlp) ? 2 * mlpDim : mlpDim;
    this.#config = config;
    this.#in = names.mlpIn.map(() => new Linear(dim, columns / names.mlpIn.length, { bias, layout, init: init.normal(initStd) }));
    this.#out = new Linear(mlpDim, dim, { bias, layout, init: init.normal(residualInitStd) });
  }

  override *children(): Iterable<readonly [string, Child]> {
    const { names } = this.#config;
    for (const [i, layer] of this.#in.entries()) yield [names.mlpIn[i]!, layer];
    yield [names.mlpOut, this.#out];
  }

  forward(x: Tensor): Tensor {
    const { mlp: activation, layout, dropout: p } = this.#config;
    const inParts = [...this.#in, this.#out].some(({ fp8, adapter }) => fp8 || adapter);
    const y = inParts ? this.#inParts(x) : mlp(x, this.#in, this.#out, activation, layout);
    return dropout(y, p.residual);
  }

  /** In eight bits, or with adapters. */
  #inParts(x: Tensor): Tensor {
    const { mlp: activation, layout, mlpBias } = this.#config;
    const [first, last] = [this.#in[0]!.fp8, this.#out.fp8];
    const alike = [...this.#in, this.#out].every(({ fp8, adapter }) => fp8 && !adapter);
    const whole = alike && first && last && activation === 'swiglu' && layout === 'out_in' && !mlpBias;
    if (whole) {
      const weights = this.#in.map(({ weight }) => weight);
      return mlpFp8(x, weights, this.#out.weight, [first, last]);
    }
    const h = fusedLinear(x, this.#in);
    return this.#out.forward(activate(h, activation));
  }
}

import {
  attention,
  type Child,
  dropout,
  fusedLinear,
  headNorm,
  init,
  Linear,
  Module,
  RMSNorm,
  rope,
  type Tensor,
} from '@deepspeed-ts/core';
import type { LayerCache } from '../generation/cache.js';
import type { DecoderConfig } from './config.js';
import type { RotaryTable } from './rotary.js';

/** What attention of one layer does; see `LayerAttention`. */
export interface LayerRun {
  readonly window: number;
  readonly rotary?: RotaryTable | undefined;
}

/** Causal self-attention of x [B, T, dim], with grouped key heads, rotary positions and a sliding window where the config says so. */
export class CausalSelfAttention extends Module<[Tensor, Tensor?, LayerCache?], Tensor> {
  readonly #config: DecoderConfig;
  readonly #layer: LayerRun;
  readonly #qkv: Linear[];
  readonly #qNorm: RMSNorm | undefined;
  readonly #kNorm: RMSNorm | undefined;
  readonly #out: Linear;

  constructor(config: DecoderConfig, layer: LayerRun) {
    super();
    const { dim, heads, kvHeads, headDim, layout, initStd, residualInitStd, normEps, names } = config;
    const sizes = names.qkv.length === 1 ? [(heads + 2 * kvHeads) * headDim] : [heads * headDim, kvHeads * headDim, kvHeads * headDim];
    this.#config = config;
    this.#layer = layer;
    this.#qkv = sizes.map((size) => new Linear(dim, size, { bias: config.attentionBias, layout, init: init.normal(initStd) }));
    this.#qNorm = names.qNorm ? new RMSNorm(headDim, normEps) : undefined;
    this.#kNorm = names.kNorm ? new RMSNorm(headDim, normEps) : undefined;
    this.#out = new Linear(heads * headDim, dim, { bias: config.attentionOutBias, layout, init: init.normal(residualInitStd) });
  }

  override *children(): Iterable<readonly [string, Child]> {
    const { names } = this.#config;
    for (const [i, layer] of this.#qkv.entries()) yield [names.qkv[i]!, layer];
    if (this.#qNorm) yield [names.qNorm!, this.#qNorm];
    if (this.#kNorm) yield [names.kNorm!, this.#kNorm];
    yield [names.attentionOut, this.#out];
  }

  /**
   * `positions` i32 [B, T] where rows hold several documents: of each token in its own. With a cache the tokens follow those that it keeps, at
   * `positions` of their rows.
   */
  forward(x: Tensor, positions?: Tensor, cache?: LayerCache): Tensor {
    const { heads, kvHeads, headDim, attentionScale: scale, dropout: p } = this.#config;
    const { window, rotary } = this.#layer;
    let qkv = fusedLinear(x, this.#qkv);
    if (this.#qNorm && this.#kNorm)
      qkv = headNorm(qkv, this.#qNorm.weight, this.#kNorm.weight, { heads, kvHeads, headDim, eps: this.#qNorm.eps });
    if (rotary) {
      const { cos, sin } = rotary.on(x.device, (cache?.length ?? 0) + x.shape[1]!);
      qkv = rope(qkv, cos, sin, { rotatedHeads: heads + kvHeads, headDim, positions });
    }
    const options = { heads, kvHeads, headDim, scale, window, dropout: p.attention, positions };
    const y = cache ? cache.attend(qkv, options) : attention(qkv, options);
    return dropout(this.#out.forward(y), p.residual);
  }
}

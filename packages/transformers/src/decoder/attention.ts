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
  swapHeads,
  type Tensor,
} from '@deepspeed-ts/core';
import type { LayerCache } from '../generation/cache.js';
import type { DecoderConfig } from './config.js';
import { normOffset } from './norm.js';
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
    this.#qNorm = names.qNorm ? new RMSNorm(headDim, normEps, normOffset(config)) : undefined;
    this.#kNorm = names.kNorm ? new RMSNorm(headDim, normEps, normOffset(config)) : undefined;
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
    const { heads, kvHeads, headDim, dropout: p } = this.#config;
    const { rotary, window } = this.#layer;
    let qkv = fusedLinear(x, this.#qkv);
    if (this.#config.qkvByHead) qkv = swapHeads(qkv, heads, 3);
    if (this.#qNorm && this.#kNorm) {
      const { eps, offset } = this.#qNorm;
      qkv = headNorm(qkv, this.#qNorm.weight, this.#kNorm.weight, { heads, kvHeads, headDim, eps, offset });
    }
    if (rotary) {
      const { cos, sin } = rotary.on(x.device, (cache?.length ?? 0) + x.shape[1]!);
      qkv = rope(qkv, cos, sin, { rotatedHeads: heads + kvHeads, headDim, rotaryDim: rotary.config.dim, positions });
    }
    const options = { heads, kvHeads, headDim, window, dropout: p.attention, positions, ...scoresOf(this.#config) };
    const y = cache ? cache.attend(qkv, options) : attention(qkv, options);
    return dropout(this.#out.forward(y), p.residual);
  }
}

/** What becomes of q . k. */
function scoresOf({ attentionScale: scale, attentionSoftcap: softcap, positions }: DecoderConfig) {
  return { scale, softcap, alibi: positions.kind === 'alibi' };
}

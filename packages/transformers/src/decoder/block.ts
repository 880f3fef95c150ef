import {
  attention,
  type Child,
  dropout,
  fusedLinear,
  gelu,
  init,
  LayerNorm,
  Linear,
  Module,
  mlp,
  mlpFp8,
  RMSNorm,
  rope,
  swiglu,
  type Tensor,
} from '@deepspeed-ts/core';
import type { DecoderConfig } from './config.js';
import type { RotaryTable } from './rotary.js';

/** Causal self-attention of x [B, T, dim], with grouped key heads and rotary positions where the config says so. */
export class CausalSelfAttention extends Module<[Tensor, Tensor?], Tensor> {
  readonly #config: DecoderConfig;
  readonly #rotary: RotaryTable | undefined;
  readonly #qkv: Linear[];
  readonly #out: Linear;

  constructor(config: DecoderConfig, rotary: RotaryTable | undefined) {
    super();
    const { dim, heads, kvHeads, headDim, layout, initStd, names } = config;
    const sizes = names.qkv.length === 1 ? [(heads + 2 * kvHeads) * headDim] : [heads * headDim, kvHeads * headDim, kvHeads * headDim];
    this.#config = config;
    this.#rotary = rotary;
    this.#qkv = sizes.map((size) => new Linear(dim, size, { bias: config.attentionBias, layout, init: init.normal(initStd) }));
    this.#out = new Linear(heads * headDim, dim, { bias: config.attentionOutBias, layout, init: init.normal(residualStd(config)) });
  }

  override *children(): Iterable<readonly [string, Child]> {
    const { names } = this.#config;
    for (const [i, layer] of this.#qkv.entries()) yield [names.qkv[i]!, layer];
    yield [names.attentionOut, this.#out];
  }

  /** `positions` i32 [B, T] where rows hold several documents: of each token in its own. */
  forward(x: Tensor, positions?: Tensor): Tensor {
    const { heads, kvHeads, headDim, dropout: p } = this.#config;
    let qkv = fusedLinear(x, this.#qkv);
    if (this.#rotary) {
      const { cos, sin } = this.#rotary.on(x.device);
      qkv = rope(qkv, cos, sin, { rotatedHeads: heads + kvHeads, headDim, positions });
    }
    const y = attention(qkv, { heads, kvHeads, headDim, dropout: p.attention, positions });
    return dropout(this.#out.forward(y), p.residual);
  }
}

/** The feed-forward part: gelu(x W) W, or swiglu. */
export class MLP extends Module<[Tensor], Tensor> {
  readonly #config: DecoderConfig;
  readonly #in: Linear[];
  readonly #out: Linear;

  constructor(config: DecoderConfig) {
    super();
    const { dim, mlpDim, layout, initStd, names, mlpBias: bias } = config;
    this.#config = config;
    this.#in = names.mlpIn.map(() => new Linear(dim, mlpDim, { bias, layout, init: init.normal(initStd) }));
    this.#out = new Linear(mlpDim, dim, { bias, layout, init: init.normal(residualStd(config)) });
  }

  override *children(): Iterable<readonly [string, Child]> {
    const { names } = this.#config;
    for (const [i, layer] of this.#in.entries()) yield [names.mlpIn[i]!, layer];
    yield [names.mlpOut, this.#out];
  }

  forward(x: Tensor): Tensor {
    const { mlp: activation, layout, dropout: p } = this.#config;
    const y = this.#out.fp8 ? this.#inEightBits(x) : mlp(x, this.#in, this.#out, activation, layout);
    return dropout(y, p.residual);
  }

  #inEightBits(x: Tensor): Tensor {
    const { mlp: activation, layout, mlpBias } = this.#config;
    const [first, last] = [this.#in[0]!.fp8, this.#out.fp8];
    const whole = first && last && activation === 'swiglu' && layout === 'out_in' && !mlpBias && this.#in.every(({ fp8 }) => fp8);
    if (whole) {
      const weights = this.#in.map(({ weight }) => weight);
      return mlpFp8(x, weights, this.#out.weight, [first, last]);
    }
    const h = fusedLinear(x, this.#in);
    return this.#out.forward(activation === 'swiglu' ? swiglu(h) : gelu(h, activation === 'gelu_tanh' ? 'tanh' : 'none'));
  }
}

/**
 * One transformer block with pre-normalisation. The residual sum is fused into the next norm: the block takes and gives
 * (residual stream, what is still to be added to it).
 */
export class DecoderBlock extends Module<[Stream, Tensor?], Stream> {
  override readonly isUnit = true;
  readonly #config: DecoderConfig;
  readonly #attentionNorm: LayerNorm | RMSNorm;
  readonly #attention: CausalSelfAttention;
  readonly #mlpNorm: LayerNorm | RMSNorm;
  readonly #mlp: MLP;

  constructor(config: DecoderConfig, rotary: RotaryTable | undefined) {
    super();
    this.#config = config;
    this.#attentionNorm = normOf(config);
    this.#attention = new CausalSelfAttention(config, rotary);
    this.#mlpNorm = normOf(config);
    this.#mlp = new MLP(config);
  }

  override *children(): Iterable<readonly [string, Child]> {
    const { names } = this.#config;
    yield [names.attentionNorm, this.#attentionNorm];
    yield [names.attention, this.#attention];
    yield [names.mlpNorm, this.#mlpNorm];
    yield [names.mlp, this.#mlp];
  }

  forward({ stream, update }: Stream, positions?: Tensor): Stream {
    const attended = this.#attentionNorm.call(stream, update);
    const middle = this.#mlpNorm.call(attended.sum, this.#attention.call(attended.y, positions));
    return { stream: middle.sum, update: this.#mlp.call(middle.y) };
  }
}

/** The residual stream [B, T, dim] and an update that the next norm adds to it. */
export type Stream = {
  readonly stream: Tensor;
  readonly update?: Tensor;
};

export function normOf({ norm, dim, normEps }: DecoderConfig): LayerNorm | RMSNorm {
  return norm === 'layer' ? new LayerNorm(dim, normEps) : new RMSNorm(dim, normEps);
}

/** GPT-2 scales what feeds the residual stream by 1/sqrt(2 layers), so that its variance does not grow with depth. */
function residualStd({ initStd, layers, layout }: DecoderConfig): number {
  return layout === 'in_out' ? initStd / Math.sqrt(2 * layers) : initStd;
}

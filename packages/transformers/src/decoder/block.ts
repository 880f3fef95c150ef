import { add, type Child, type LayerNorm, Module, type RMSNorm, type Tensor } from '@deepspeed-ts/core';
import type { LayerCache } from '../generation/cache.js';
import { CausalSelfAttention, type LayerRun } from './attention.js';
import type { DecoderConfig } from './config.js';
import { MLP } from './mlp.js';
import { normOf } from './norm.js';

/** The residual stream [B, T, dim] and an update that the next norm adds to it. */
export type Stream = {
  readonly stream: Tensor;
  readonly update?: Tensor;
};

/**
 * One transformer block. The residual sum is fused into the next norm: the block takes and gives (residual stream, what is still to be
 * added to it).
 */
export class DecoderBlock extends Module<[Stream, Tensor?, LayerCache?], Stream> {
  override readonly isUnit = true;
  readonly #config: DecoderConfig;
  readonly #attentionNorm: LayerNorm | RMSNorm;
  readonly #attention: CausalSelfAttention;
  readonly #attentionPostNorm: LayerNorm | RMSNorm | undefined;
  readonly #mlpNorm: LayerNorm | RMSNorm;
  readonly #mlp: MLP;
  readonly #mlpPostNorm: LayerNorm | RMSNorm | undefined;

  constructor(config: DecoderConfig, layer: LayerRun) {
    super();
    const { names } = config;
    this.#config = config;
    this.#attentionNorm = normOf(config);
    this.#attention = new CausalSelfAttention(config, layer);
    this.#attentionPostNorm = names.attentionPostNorm ? normOf(config) : undefined;
    this.#mlpNorm = normOf(config);
    this.#mlp = new MLP(config);
    this.#mlpPostNorm = names.mlpPostNorm ? normOf(config) : undefined;
  }

  override *children(): Iterable<readonly [string, Child]> {
    const { names } = this.#config;
    yield [names.attentionNorm, this.#attentionNorm];
    yield [names.attention, this.#attention];
    if (this.#attentionPostNorm) yield [names.attentionPostNorm!, this.#attentionPostNorm];
    yield [names.mlpNorm, this.#mlpNorm];
    if (names.mlp) yield [names.mlp, this.#mlp];
    else yield* this.#mlp.children();
    if (this.#mlpPostNorm) yield [names.mlpPostNorm!, this.#mlpPostNorm];
  }

  forward(state: Stream, positions?: Tensor, cache?: LayerCache): Stream {
    switch (this.#config.block) {
      case 'pre':
        return this.#pre(state, positions, cache);
      case 'post':
        return this.#post(state, positions, cache);
      case 'parallel':
        return this.#parallel(state, positions, cache);
    }
  }

  #pre({ stream, update }: Stream, positions?: Tensor, cache?: LayerCache): Stream {
    const { residualFromNorm } = this.#config;
    const attended = this.#attentionNorm.call(stream, update);
    const middle = this.#mlpNorm.call(residualFromNorm ? attended.y : attended.sum, this.#attend(attended.y, positions, cache));
    return { stream: residualFromNorm ? middle.y : middle.sum, update: this.#feed(middle.y) };
  }

  #post({ stream, update }: Stream, positions?: Tensor, cache?: LayerCache): Stream {
    const x = update ? add(stream, update) : stream;
    const middle = this.#attentionNorm.call(x, this.#attend(x, positions, cache)).y;
    return { stream: this.#mlpNorm.call(middle, this.#feed(middle)).y };
  }

  #parallel({ stream, update }: Stream, positions?: Tensor, cache?: LayerCache): Stream {
    const { y, sum } = this.#attentionNorm.call(stream, update);
    return { stream: sum, update: add(this.#attend(y, positions, cache), this.#feed(this.#mlpNorm.call(sum).y)) };
  }

  #attend(x: Tensor, positions?: Tensor, cache?: LayerCache): Tensor {
    const y = this.#attention.call(x, positions, cache);
    return this.#attentionPostNorm ? this.#attentionPostNorm.call(y).y : y;
  }

  #feed(x: Tensor): Tensor {
    const y = this.#mlp.call(x);
    return this.#mlpPostNorm ? this.#mlpPostNorm.call(y).y : y;
  }
}

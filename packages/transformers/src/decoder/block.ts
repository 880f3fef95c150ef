import { add, type Child, type LayerNorm, Module, type RMSNorm, type Tensor } from '@deepspeed-ts/core';
import type { LayerCache } from '../generation/cache.js';
import { CausalSelfAttention, type LayerRun } from './attention.js';
import type { DecoderConfig } from './config.js';
import { SparseExperts } from './experts.js';
import { MLP } from './mlp.js';
import { normOf } from './norm.js';

/** The residual stream [B, T, dim] and an update that the next norm adds to it. */
export type Stream = {
  readonly stream: Tensor;
  readonly update?: Tensor;
  /** The load of the routers so far, f32 [2, experts], where the loss asks for it. */
  readonly load?: Tensor | undefined;
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
  readonly #mlp: MLP | SparseExperts;
  readonly #mlpPostNorm: LayerNorm | RMSNorm | undefined;

  constructor(config: DecoderConfig, layer: LayerRun) {
    super();
    const { names } = config;
    this.#config = config;
    this.#attentionNorm = normOf(config);
    this.#attention = new CausalSelfAttention(config, layer);
    this.#attentionPostNorm = names.attentionPostNorm ? normOf(config) : undefined;
    this.#mlpNorm = normOf(config);
    this.#mlp = config.experts ? new SparseExperts(config, config.experts) : new MLP(config);
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

  #pre({ stream, update, load }: Stream, positions?: Tensor, cache?: LayerCache): Stream {
    const { residualFromNorm } = this.#config;
    const attended = this.#attentionNorm.call(stream, update);
    const middle = this.#mlpNorm.call(residualFromNorm ? attended.y : attended.sum, this.#attend(attended.y, positions, cache));
    return { stream: residualFromNorm ? middle.y : middle.sum, ...this.#feed(middle.y, load) };
  }

  #post({ stream, update, load }: Stream, positions?: Tensor, cache?: LayerCache): Stream {
    const x = update ? add(stream, update) : stream;
    const middle = this.#attentionNorm.call(x, this.#attend(x, positions, cache)).y;
    const fed = this.#feed(middle, load);
    return { stream: this.#mlpNorm.call(middle, fed.update).y, load: fed.load };
  }

  #parallel({ stream, update, load }: Stream, positions?: Tensor, cache?: LayerCache): Stream {
    const { y, sum } = this.#attentionNorm.call(stream, update);
    const attended = this.#attend(y, positions, cache);
    const fed = this.#feed(this.#mlpNorm.call(sum).y, load);
    return { stream: sum, update: add(attended, fed.update), load: fed.load };
  }

  #attend(x: Tensor, positions?: Tensor, cache?: LayerCache): Tensor {
    const y = this.#attention.call(x, positions, cache);
    return this.#attentionPostNorm ? this.#attentionPostNorm.call(y).y : y;
  }

  #feed(x: Tensor, before: Tensor | undefined): { update: Tensor; load: Tensor | undefined } {
    const { y, load } = this.#mlp instanceof MLP ? { y: this.#mlp.call(x) } : this.#mlp.call(x, before !== undefined);
    return { update: this.#mlpPostNorm ? this.#mlpPostNorm.call(y).y : y, load: before && load ? add(before, load) : before };
  }
}

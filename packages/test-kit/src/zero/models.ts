import {
  add,
  type CausalBatch,
  DecoderLM,
  Embedding,
  gelu,
  gpt2,
  init,
  LayerNorm,
  Linear,
  linearCrossEntropy,
  Module,
  Parameter,
  type Tensor,
} from '@deepspeed-ts/core';

/** The models that the promises are checked on: small, and between them with everything that could upset a partitioner. */
export type ModelName = 'gpt' | 'odd';

export const VOCABULARY = 23;
export const CONTEXT = 8;

export function buildModel(name: ModelName, options: { dropout?: number; recompute?: boolean } = {}): DecoderLM | OddModel {
  if (name === 'odd') return new OddModel();
  const { dropout = 0, recompute = false } = options;
  const model = new DecoderLM(gpt2({ vocabSize: VOCABULARY, layers: 2, heads: 2, dim: 16, context: CONTEXT, dropout }));
  model.recompute = recompute;
  return model;
}

/** A residual block of its own unit; with 53 hidden features no parameter ends where a slice does. */
class OddBlock extends Module<[Tensor], Tensor> {
  override readonly isUnit = true;
  readonly norm = new LayerNorm(13);
  readonly up = new Linear(13, 53);
  readonly down = new Linear(53, 13, { bias: false });

  forward(x: Tensor): Tensor {
    return add(x, this.down.call(gelu(this.up.call(this.norm.call(x).y), 'none')));
  }
}

/** A unit whose weights are all frozen. */
class FrozenUnit extends Linear {
  override readonly isUnit = true;

  constructor() {
    super(13, 13);
    this.weight.requiresGrad = false;
    this.bias!.requiresGrad = false;
  }
}

/** Uneven sizes, a tied table, a frozen unit, a frozen parameter among trained ones, and parameters that nothing uses. */
export class OddModel extends Module<[CausalBatch], Tensor> {
  readonly embed = new Embedding(VOCABULARY, 13, init.normal(0.3));
  readonly blocks = [new OddBlock(), new OddBlock()];
  readonly frozen = new FrozenUnit();
  readonly unusedUnit = new Embedding(5, 13);
  readonly norm = new LayerNorm(13);
  readonly unused = new Parameter([53], init.normal(1));

  constructor() {
    super();
    this.blocks[1]!.up.bias!.requiresGrad = false;
  }

  forward({ inputIds, labels }: CausalBatch): Tensor {
    let x = this.embed.call(inputIds);
    for (const block of this.blocks) x = block.call(x);
    x = add(x, this.frozen.call(x));
    return linearCrossEntropy(this.norm.call(x).y, this.embed.weight, labels);
  }

  dispose(): void {}
}

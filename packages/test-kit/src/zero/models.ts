import {
  add,
  type CausalBatch,
  Embedding,
  fusedLinear,
  gelu,
  init,
  LayerNorm,
  Linear,
  linearCrossEntropy,
  Module,
  Parameter,
  type QuantizedFormat,
  quantizeWeights,
  swiglu,
  type Tensor,
} from '@deepspeed-ts/core';
import { type DecoderConfig, DecoderLM, decoderConfig, getPeftModel, gpt2, type PeftModel } from '@deepspeed-ts/transformers';

/** The models that the promises are checked on: small, and between them with everything that could upset a partitioner. */
export type ModelName = 'gpt' | 'lora' | 'mixtral' | 'odd' | 'wandering' | 'parting';

export const VOCABULARY = 23;
export const CONTEXT = 8;

export interface ModelOptions {
  readonly dropout?: number;
  readonly recompute?: boolean;
  /** What the frozen weights beside adapters are kept as. */
  readonly quantization?: QuantizedFormat;
  /** Of the process, for a model that is used in another way on each. */
  readonly rank?: number;
}

export function buildModel(name: ModelName, options: ModelOptions = {}): DecoderLM | OddModel | WanderingModel | PeftModel {
  const { dropout = 0, recompute = false, rank = 0 } = options;
  if (name === 'odd') return new OddModel();
  if (name === 'wandering') return new WanderingModel(0);
  if (name === 'parting') return new WanderingModel(rank);
  const sparse = name === 'mixtral';
  const model = new DecoderLM(
    sparse ? mixtral() : gpt2({ vocabSize: VOCABULARY, layers: 2, heads: 2, dim: 16, context: CONTEXT, dropout }),
  );
  model.recompute = recompute;
  if (options.quantization) quantizeWeights(model, options.quantization);
  return name !== 'lora' ? model : getPeftModel(model, { r: 3, loraAlpha: 36, loraDropout: dropout, modulesToSave: ['ln_f'] });
}

/** Experts with all that a router may do: noise, and a loss of its own. */
function mixtral(): DecoderConfig {
  return decoderConfig({
    model_type: 'mixtral',
    vocab_size: VOCABULARY,
    hidden_size: 16,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    intermediate_size: 24,
    num_local_experts: 5,
    num_experts_per_tok: 2,
    router_jitter_noise: 0.1,
    output_router_logits: true,
    router_aux_loss_coef: 0.1,
    max_position_embeddings: CONTEXT,
    initializer_range: 0.1,
  });
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

class LinearUnit extends Linear {
  override readonly isUnit = true;
}

function frozenUnit(): LinearUnit {
  const unit = new LinearUnit(13, 13);
  unit.weight.requiresGrad = false;
  unit.bias!.requiresGrad = false;
  return unit;
}

/** Uneven sizes, a tied table, a frozen unit, a frozen parameter among trained ones, and parameters that nothing uses or that have no elements. */
export class OddModel extends Module<[CausalBatch], Tensor> {
  readonly embed = new Embedding(VOCABULARY, 13, init.normal(0.3));
  readonly blocks = [new OddBlock(), new OddBlock()];
  readonly frozen = frozenUnit();
  readonly unusedUnit = new Embedding(5, 13);
  readonly norm = new LayerNorm(13);
  readonly unused = new Parameter([53], init.normal(1));
  readonly empty = new Parameter([0, 13], init.normal(1));
  readonly emptyUnit = new LinearUnit(13, 0);

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

  override dispose(): void {}
}

/**
 * Uses its units in another order in each pass, one of them twice or not at all, and two in a single op: whatever a store learned
 * from the pass before is wrong.
 */
export class WanderingModel extends Module<[CausalBatch], Tensor> {
  readonly embed = new Embedding(VOCABULARY, 13, init.normal(0.3));
  readonly blocks = [new OddBlock(), new OddBlock(), new OddBlock()];
  readonly left = new LinearUnit(13, 13);
  readonly right = new LinearUnit(13, 13);
  readonly head = new LinearUnit(13, VOCABULARY, { bias: false });
  #passes: number;

  constructor(firstPass: number) {
    super();
    this.#passes = firstPass;
  }

  forward({ inputIds, labels }: CausalBatch): Tensor {
    const pass = this.#passes++;
    let x = this.embed.call(inputIds);
    const order = [0, 1, 2].map((i) => (i + pass) % 3);
    if (pass % 4 === 1) order.pop();
    if (pass % 4 === 2) order.push(order[0]!);
    for (const i of order) x = this.blocks[i]!.call(x);
    const sides = pass % 2 === 0 ? [this.left, this.right] : [this.right, this.left];
    x = add(x, swiglu(fusedLinear(x, sides)));
    return linearCrossEntropy(x, this.head.weight, labels);
  }

  override dispose(): void {}
}

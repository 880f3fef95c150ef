import { ShapeError } from '../../errors.js';
import { add, dropout, linear, linearCrossEntropy } from '../../ops/index.js';
import type { Tensor } from '../../tensor/tensor.js';
import { throughBlocks } from '../blocks.js';
import { init } from '../init.js';
import { Embedding, type LayerNorm, Linear, type RMSNorm } from '../layers.js';
import { type Child, Module } from '../module.js';
import { DecoderBlock, normOf, type Stream } from './block.js';
import type { DecoderConfig } from './config.js';
import { PositionIds } from './positions.js';
import { RotaryTable } from './rotary.js';

/** Tokens and what should follow each: i32 [B, T]. A label of -100 counts for nothing. */
export interface CausalBatch {
  readonly inputIds: Tensor;
  readonly labels: Tensor;
  /**
   * i32 [B, T], where rows hold several documents one after another: the position of each token in its own document, from 0 on
   * (`documentPositions`). No document sees another, and positions start anew in each: a packed row gives what its documents give
   * in rows of their own. Default: a row is one document.
   */
  readonly positionIds?: Tensor | undefined;
}

/** A language model as engines, servers and RLHF loops know it. */
export interface CausalLM extends Module<[CausalBatch], Tensor> {
  /** Mean cross-entropy in nats of the labels, f32 []. */
  forward(batch: CausalBatch): Tensor;
  /** Scores of the next token at every position: [B, T, V]. */
  logits(inputIds: Tensor, positionIds?: Tensor): Tensor;
}

/** A decoder-only language model described by a DecoderConfig, with the parameter names of its family's checkpoints. */
export class DecoderLM extends Module<[CausalBatch], Tensor> implements CausalLM {
  readonly config: DecoderConfig;
  /** Recompute each block in backward instead of keeping its activations, where the run does not say otherwise. */
  recompute = false;
  readonly #embed: Embedding;
  readonly #positions: Embedding | undefined;
  readonly #positionIds = new PositionIds();
  readonly #blocks: DecoderBlock[];
  readonly #norm: LayerNorm | RMSNorm;
  readonly #head: Head | undefined;
  readonly #rotary: RotaryTable | undefined;

  constructor(config: DecoderConfig) {
    super();
    const { vocabSize, dim, layers, positions, headDim, maxPositions, initStd } = config;
    this.config = config;
    this.#rotary = positions === 'learned' ? undefined : new RotaryTable(positions.rotaryTheta, headDim, maxPositions);
    this.#embed = new Embedding(vocabSize, dim, init.normal(initStd));
    this.#positions = positions === 'learned' ? new Embedding(maxPositions, dim, init.normal(initStd)) : undefined;
    this.#blocks = Array.from({ length: layers }, () => new DecoderBlock(config, this.#rotary));
    this.#norm = normOf(config);
    this.#head = config.tieEmbeddings ? undefined : new Head(dim, vocabSize, { bias: false, init: init.normal(initStd) });
  }

  override *children(): Iterable<readonly [string, Child]> {
    const { names } = this.config;
    const base = (name: string) => `${names.base}.${name}`;
    yield [base(names.embed), this.#embed];
    if (this.#positions) yield [base(names.positions!), this.#positions];
    yield [base(names.blocks), this.#blocks];
    yield [base(names.norm), this.#norm];
    if (this.#head) yield ['lm_head', this.#head];
  }

  forward({ inputIds, labels, positionIds }: CausalBatch): Tensor {
    return linearCrossEntropy(this.#hidden(inputIds, positionIds), this.#headWeight, labels);
  }

  logits(inputIds: Tensor, positionIds?: Tensor): Tensor {
    return linear(this.#hidden(inputIds, positionIds), [this.#headWeight]);
  }

  /** Gives back the tables of positions. Parameters belong to their store. */
  override dispose(): void {
    super.dispose();
    this.#rotary?.dispose();
    this.#positionIds.dispose();
  }

  get #headWeight() {
    return (this.#head ?? this.#embed).weight;
  }

  /** The normalised last hidden state [B, T, dim]. */
  #hidden(inputIds: Tensor, positionIds?: Tensor): Tensor {
    const { maxPositions, dropout: p } = this.config;
    const [batch = 0, tokens = 0] = inputIds.shape;
    if (inputIds.shape.length !== 2 || tokens > maxPositions) {
      throw new ShapeError('decoder', `inputIds of shape [batch, tokens <= ${maxPositions}]`, `[${inputIds.shape.join(', ')}]`);
    }
    let x = this.#embed.call(inputIds);
    if (this.#positions) {
      const ids = positionIds ?? this.#positionIds.on(inputIds.device, batch, tokens);
      x = add(x, this.#positions.call(ids));
    }
    const state = throughBlocks<Stream, [Tensor?]>(this.#blocks, { stream: dropout(x, p.embedding) }, this.recompute, positionIds);
    return this.#norm.call(state.stream, state.update).y;
  }
}

/** The output projection of an untied model; a unit of its own. */
class Head extends Linear {
  override readonly isUnit = true;
}

/**
 * Labels as Hugging Face shifts them: position t should say token t + 1, the last position nothing. With `positionIds`, the last of
 * each document says nothing.
 */
export function nextTokenLabels(ids: ArrayLike<number>, tokens: number, positionIds?: ArrayLike<number>): Int32Array {
  const ends = (i: number) => i % tokens === tokens - 1 || positionIds?.[i + 1] === 0;
  return Int32Array.from({ length: ids.length }, (_, i) => (ends(i) ? -100 : ids[i + 1]!));
}

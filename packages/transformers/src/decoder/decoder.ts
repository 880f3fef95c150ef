import {
  add,
  type CausalBatch,
  type CausalLM,
  type Child,
  dropout,
  Embedding,
  init,
  type LayerNorm,
  Linear,
  linear,
  linearCrossEntropy,
  Module,
  type RMSNorm,
  ShapeError,
  type Tensor,
  throughBlocks,
} from '@deepspeed-ts/core';
import { DecoderBlock, type Stream } from './block.js';
import type { DecoderConfig } from './config.js';
import { normOf } from './norm.js';
import { PositionIds } from './positions.js';
import { type RotaryConfig, RotaryTable } from './rotary.js';

/** A decoder-only language model described by a DecoderConfig, with the parameter names of its family's checkpoints. */
export class DecoderLM extends Module<[CausalBatch], Tensor> implements CausalLM {
  readonly config: DecoderConfig;
  /** Recompute each block in backward instead of keeping its activations, where the run does not say otherwise. */
  recompute = false;
  readonly #embed: Embedding;
  readonly #positions: Embedding | undefined;
  readonly #positionIds: PositionIds;
  readonly #blocks: DecoderBlock[];
  readonly #norm: LayerNorm | RMSNorm;
  readonly #head: Head | undefined;
  /** One for all layers that turn alike. */
  readonly #rotary = new Map<RotaryConfig, RotaryTable>();

  constructor(config: DecoderConfig) {
    super();
    const { vocabSize, dim, positions, maxPositions, initStd } = config;
    const learned = positions.kind === 'learned' ? positions.offset : undefined;
    this.config = config;
    this.#embed = new Embedding(vocabSize, dim, init.normal(initStd));
    this.#positions = learned === undefined ? undefined : new Embedding(maxPositions + learned, dim, init.normal(initStd));
    this.#positionIds = new PositionIds();
    this.#blocks = config.layerAttention.map(({ window, rotary }) => new DecoderBlock(config, { window, rotary: this.#table(rotary) }));
    this.#norm = normOf(config);
    this.#head = config.tieEmbeddings ? undefined : new Head(dim, vocabSize, { bias: false, init: init.normal(initStd) });
  }

  override *children(): Iterable<readonly [string, Child]> {
    const { names } = this.config;
    const base = (name: string) => `${names.base}.${name}`;
    yield [base(names.embed), this.#embed];
    if (this.#positions) yield [base(names.positions!), this.#positions];
    yield [base(names.blocks), this.#blocks];
    yield [base(names.norm!), this.#norm];
    if (this.#head) yield [names.head, this.#head];
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
    for (const table of this.#rotary.values()) table.dispose();
    this.#positionIds.dispose();
  }

  #table(config: RotaryConfig | undefined): RotaryTable | undefined {
    if (!config) return undefined;
    const table = this.#rotary.get(config) ?? new RotaryTable(config);
    this.#rotary.set(config, table);
    return table;
  }

  get #headWeight() {
    return (this.#head ?? this.#embed).weight;
  }

  /** The normalised last hidden state [B, T, dim]. */
  #hidden(inputIds: Tensor, positionIds?: Tensor): Tensor {
    const { maxPositions, dropout: p } = this.config;
    const [batch = 0, tokens = 0] = inputIds.shape;
    // What is learned for each position ends with them; what is computed goes on.
    const most = this.#positions ? maxPositions : Number.POSITIVE_INFINITY;
    if (inputIds.shape.length !== 2 || tokens > most) {
      const limit = this.#positions ? `tokens <= ${most}` : 'tokens';
      throw new ShapeError('decoder', `inputIds of shape [batch, ${limit}]`, `[${inputIds.shape.join(', ')}]`);
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

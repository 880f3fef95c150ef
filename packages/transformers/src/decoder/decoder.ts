import {
  add,
  type CausalBatch,
  type Child,
  dropout,
  Embedding,
  embedding,
  init,
  type LayerNorm,
  Linear,
  linear,
  linearCrossEntropy,
  loadBalance,
  Module,
  noGrad,
  type RMSNorm,
  ShapeError,
  scale,
  scope,
  type Tensor,
  tensor,
  throughBlocks,
  zeros,
} from '@deepspeed-ts/core';
import { DecoderCache } from '../generation/cache.js';
import type { GenerativeLM, SequenceSizes } from '../generation/decode.js';
import { DecoderBlock, type Stream } from './block.js';
import type { DecoderConfig } from './config.js';
import { normOf } from './norm.js';
import { PositionIds } from './positions.js';
import { type RotaryConfig, RotaryTable } from './rotary.js';

/** A decoder-only language model described by a DecoderConfig, with the parameter names of its family's checkpoints. */
export class DecoderLM extends Module<[CausalBatch], Tensor> implements GenerativeLM {
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
    const { experts, layers } = this.config;
    const before = experts?.balance ? zeros(inputIds.device, [2, experts.count], 'f32') : undefined;
    const state = this.#through(inputIds, positionIds, { load: before });
    const loss = linearCrossEntropy(this.#finish(state), this.#headWeight, labels);
    return state.load ? add(loss, scale(loadBalance(state.load, layers * inputIds.numel), experts!.balance)) : loss;
  }

  logits(inputIds: Tensor, positionIds?: Tensor): Tensor {
    return this.#scores(this.#finish(this.#through(inputIds, positionIds)));
  }

  /** Tokens that a sequence may have. What is learned for each position ends with them; what is computed goes on. */
  get maxTokens(): number {
    return this.#positions ? this.config.maxPositions : Number.POSITIVE_INFINITY;
  }

  createCache(sizes: SequenceSizes): DecoderCache {
    const { layers, kvHeads, headDim } = this.config;
    const { device, dtype } = this.#embed.weight.store;
    return new DecoderCache({ ...sizes, device, dtype, layers, kvHeads, headDim, maxTokens: this.maxTokens });
  }

  /** Scores [rows, V] of what comes after tokens i32 [rows, T], which follow those in the cache and join them. No gradient flows. */
  step(inputIds: Tensor, cache: DecoderCache): Tensor {
    return noGrad(() =>
      scope(() => {
        const [rows, tokens] = inputIds.shape as [number, number];
        const { stream, update } = this.#through(inputIds, cache.positions(tokens), { cache });
        cache.advance(tokens);
        const last = lastOf(inputIds);
        const state = { stream: last(stream), ...(update && { update: last(update) }) };
        return this.#scores(this.#finish(state)).view([rows, -1]);
      }),
    );
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

  /** What the blocks give; `load`: what routers add theirs to. */
  #through(inputIds: Tensor, positionIds?: Tensor, { cache, load }: { cache?: DecoderCache; load?: Tensor | undefined } = {}): Stream {
    const { dropout: p } = this.config;
    const [batch = 0, tokens = 0] = inputIds.shape;
    if (inputIds.shape.length !== 2 || tokens > this.maxTokens) {
      const limit = this.#positions ? `tokens <= ${this.maxTokens}` : 'tokens';
      throw new ShapeError('decoder', `inputIds of shape [batch, ${limit}]`, `[${inputIds.shape.join(', ')}]`);
    }
    let x = this.#embed.call(inputIds);
    if (this.#positions) {
      const ids = positionIds ?? this.#positionIds.on(inputIds.device, batch, tokens);
      x = add(x, this.#positions.call(ids));
    }
    const blocks = cache
      ? this.#blocks.map((block, layer) => ({
          call: (state: Stream, positions?: Tensor) => block.call(state, positions, cache.layer(layer)),
        }))
      : this.#blocks;
    return throughBlocks<Stream, [Tensor?]>(blocks, { stream: dropout(x, p.embedding), load }, this.recompute, positionIds);
  }

  /** The normalised last hidden state [B, T, dim]. */
  #finish({ stream, update }: Stream): Tensor {
    return this.#norm.call(stream, update).y;
  }

  #scores(hidden: Tensor): Tensor {
    return linear(hidden, [this.#headWeight]);
  }
}

/** The output projection of an untied model; a unit of its own. */
class Head extends Linear {
  override readonly isUnit = true;
}

/** Takes the last token of each row: [rows, 1, dim] of [rows, T, dim]. */
function lastOf({ shape, device }: Tensor): (x: Tensor) => Tensor {
  const [rows, tokens] = shape as [number, number];
  if (tokens === 1) return (x) => x;
  const places = Int32Array.from({ length: rows }, (_, row) => (row + 1) * tokens - 1);
  const ids = tensor(device, places, 'i32', [rows, 1], { kind: 'data' });
  return (x) => embedding(x.view([rows * tokens, -1]), ids);
}

/**
 * Labels as Hugging Face shifts them: position t should say token t + 1, the last position nothing. With `positionIds`, the last of
 * each document says nothing.
 */
export function nextTokenLabels(ids: ArrayLike<number>, tokens: number, positionIds?: ArrayLike<number>): Int32Array {
  const ends = (i: number) => i % tokens === tokens - 1 || positionIds?.[i + 1] === 0;
  return Int32Array.from({ length: ids.length }, (_, i) => (ends(i) ? -100 : ids[i + 1]!));
}

import {
  add,
  type CausalBatch,
  type Child,
  type DType,
  dropout,
  Embedding,
  embedding,
  hostTensor,
  init,
  type LayerNorm,
  Linear,
  linear,
  linearCrossEntropy,
  loadBalance,
  Module,
  noGrad,
  type RMSNorm,
  rounded,
  ShapeError,
  scale,
  scope,
  shiftIds,
  softcap,
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
  readonly #embedNorm: LayerNorm | RMSNorm | undefined;
  readonly #projectIn: Linear | undefined;
  readonly #projectOut: Linear | undefined;
  readonly #norm: LayerNorm | RMSNorm | undefined;
  readonly #head: Head | undefined;
  /** One for all layers that turn alike. */
  readonly #rotary = new Map<RotaryConfig, RotaryTable>();

  constructor(config: DecoderConfig) {
    super();
    const { vocabSize, dim, embedDim, positions, maxPositions, initStd, names } = config;
    const learned = positions.kind === 'learned' ? maxPositions + positions.offset : 0;
    const initial = init.normal(initStd);
    const map = (inputs: number, outputs: number) => new Linear(inputs, outputs, { bias: false, init: initial });
    this.config = config;
    this.#embed = new Embedding(vocabSize, embedDim, initial);
    this.#embedNorm = names.embedNorm ? normOf(config) : undefined;
    this.#projectIn = names.projectIn ? map(embedDim, dim) : undefined;
    this.#projectOut = names.projectOut ? map(dim, embedDim) : undefined;
    this.#positions = learned ? new Embedding(learned, dim, initial) : undefined;
    this.#positionIds = new PositionIds();
    this.#blocks = config.layerAttention.map(({ window, rotary }) => new DecoderBlock(config, { window, rotary: this.#table(rotary) }));
    this.#norm = names.norm ? normOf(config) : undefined;
    this.#head = config.tieEmbeddings ? undefined : new Head(embedDim, vocabSize, { bias: false, init: initial });
  }

  override *children(): Iterable<readonly [string, Child]> {
    const { names } = this.config;
    const base = (name: string) => `${names.base}.${name}`;
    yield [base(names.embed), this.#embed];
    if (this.#positions) yield [base(names.positions!), this.#positions];
    if (this.#embedNorm) yield [base(names.embedNorm!), this.#embedNorm];
    if (this.#projectIn) yield [base(names.projectIn!), this.#projectIn];
    yield [base(names.blocks), this.#blocks];
    if (this.#norm) yield [base(names.norm!), this.#norm];
    if (this.#projectOut) yield [base(names.projectOut!), this.#projectOut];
    if (this.#head) yield [names.head, this.#head];
  }

  forward({ inputIds, labels, positionIds }: CausalBatch): Tensor {
    const { experts, layers, logitSoftcap } = this.config;
    const before = experts?.balance ? zeros(inputIds.device, [2, experts.count], 'f32') : undefined;
    const state = this.#through(inputIds, positionIds, { load: before });
    const loss = linearCrossEntropy(this.#finish(state), this.#headWeight, labels, { softcap: logitSoftcap });
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
    const [, tokens = 0] = inputIds.shape;
    if (inputIds.shape.length !== 2 || tokens > this.maxTokens) {
      const limit = this.#positions ? `tokens <= ${this.maxTokens}` : 'tokens';
      throw new ShapeError('decoder', `inputIds of shape [batch, ${limit}]`, `[${inputIds.shape.join(', ')}]`);
    }
    let x = this.#embedded(inputIds);
    if (this.#positions) x = add(x, this.#positions.call(this.#places(inputIds, positionIds)));
    const blocks = cache
      ? this.#blocks.map((block, layer) => ({
          call: (state: Stream, positions?: Tensor) => block.call(state, positions, cache.layer(layer)),
        }))
      : this.#blocks;
    return throughBlocks<Stream, [Tensor?]>(blocks, { stream: dropout(x, p.embedding), load }, this.recompute, positionIds);
  }

  #embedded(inputIds: Tensor): Tensor {
    const { embedScale } = this.config;
    let x = this.#embed.call(inputIds);
    if (embedScale !== 1) x = scale(x, roundedTo(embedScale, x.dtype));
    if (this.#projectIn) x = this.#projectIn.call(x);
    return this.#embedNorm ? this.#embedNorm.call(x).y : x;
  }

  /** Rows of the table of positions. */
  #places({ device, shape }: Tensor, positionIds?: Tensor): Tensor {
    const { positions } = this.config;
    const [batch, tokens] = shape as [number, number];
    const ids = positionIds ?? this.#positionIds.on(device, batch, tokens);
    return positions.kind === 'learned' && positions.offset > 0 ? shiftIds(ids, positions.offset) : ids;
  }

  /** What the head takes, [B, T, embedDim]: the normalised last hidden state. */
  #finish({ stream, update }: Stream): Tensor {
    const x = this.#norm ? this.#norm.call(stream, update).y : update ? add(stream, update) : stream;
    return this.#projectOut ? this.#projectOut.call(x) : x;
  }

  #scores(hidden: Tensor): Tensor {
    const { logitSoftcap } = this.config;
    const scores = linear(hidden, [this.#headWeight]);
    return logitSoftcap > 0 ? softcap(scores, logitSoftcap) : scores;
  }
}

/** The output projection of an untied model; a unit of its own. */
class Head extends Linear {
  override readonly isUnit = true;
}

/** A factor as models keep it, in the dtype of what it multiplies. */
function roundedTo(value: number, dtype: DType): number {
  return rounded(hostTensor([1], dtype, [value])).data[0]!;
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

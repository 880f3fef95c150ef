import type { Tensor } from '../tensor/tensor.js';
import type { Module } from './module.js';

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

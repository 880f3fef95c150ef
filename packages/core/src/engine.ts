import type { Communicator } from './comm/communicator.js';
import type { Tensor } from './tensor/tensor.js';

/** What trainers and RLHF loops know of an engine: one training step, whatever is sharded, offloaded or quantised beneath it. */
export interface TrainingEngine<Batch> {
  readonly communicator: Communicator;
  /** Optimizer steps so far, skipped ones included. */
  readonly globalSteps: number;
  /** The loss of one micro-batch, f32 []. Stays the engine's: valid until the next `forward`. */
  forward(batch: Batch): Tensor;
  /** Gradients of the loss, divided by the accumulation steps, reduced over ranks. */
  backward(loss: Tensor): void;
  /** Ends a micro-batch; on the last one of a step, updates the weights. */
  step(): Promise<void>;
  isGradientAccumulationBoundary(): boolean;
  /** A whole step: all its micro-batches. Resolves to the loss, averaged over them and over ranks. */
  trainBatch(batches: Iterable<Batch> | Iterator<Batch>): Promise<number>;
  /** The loss without training, averaged over ranks. */
  evalBatch(batch: Batch): Promise<number>;
  /** Gives everything back. Every rank calls it. */
  dispose(): Promise<void>;
}

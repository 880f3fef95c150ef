import type { DType } from '../dtype.js';
import type { Tensor } from '../tensor/tensor.js';

/**
 * Weights to begin with, by the names that the model gives its parameters: a directory of files, say. A reader asks for the elements that
 * it will own and for no others, so that no rank ever holds what is another's.
 */
export interface WeightSource {
  has(name: string): boolean;
  /** What the elements of a parameter that it has are stored in. */
  dtypeOf(name: string): DType;
  /**
   * Fills `target`, which is of that dtype, with elements of the parameter from `start` on in row-major order. Resolves when they are there.
   * Several reads are under way at a time. The memory must not be in use: reads are no part of the device's stream.
   */
  read(name: string, start: number, target: Tensor): Promise<void>;
  /** Gives back what reads keep open, such as files; a later read opens it again. */
  close(): void;
}

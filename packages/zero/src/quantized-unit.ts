import {
  type Communicator,
  type Device,
  type FloatDType,
  type Parameter,
  Quantized,
  type Shape,
  type Tensor,
  type Work,
  WorkingValues,
} from '@deepspeed-ts/core';
import type { Placement, Range, UnitLayout } from './layout.js';
import type { Gatherable } from './unit-group.js';
import { frozenError, type InitialValues, type Stage } from './unit-state.js';

export interface QuantizedUnitOptions {
  readonly device: Device;
  readonly rank: number;
  readonly stage: Stage;
  /** Of the values that parameters have while they are used. */
  readonly dtype: FloatDType;
}

/**
 * What one rank holds of frozen parameters of one unit that are kept as codes: all of them, or its slice at stage 3, where codes are gathered
 * instead of weights, a quarter of the bytes or a half. A parameter has a value in the compute dtype only while it is used.
 */
export class QuantizedUnit implements Gatherable {
  /** The elements that `codes` holds. */
  readonly kept: Range;
  readonly codes: Quantized;
  #gathered: Quantized | undefined;
  #pending: readonly Work[] = [];
  readonly #working = new WorkingValues();

  /** `index` is that of the unit among all. */
  constructor(
    readonly index: number,
    readonly layout: UnitLayout,
    readonly options: QuantizedUnitOptions,
    initial: InitialValues,
  ) {
    const { rank, stage } = options;
    this.kept = stage === 3 ? layout.sliceOf(rank) : layout.whole;
    this.codes = this.#empty(this.kept.end - this.kept.start);
    try {
      for (const { key, start, end } of layout.segments(this.kept, (placement) => placement)) {
        const part = this.part(start, end);
        try {
          part.setBy((values, at) => initial(key.name, key.parameter, values, start - key.offset + at));
        } finally {
          part.dispose();
        }
      }
    } catch (error) {
      this.dispose();
      throw error;
    }
  }

  get isWhole(): boolean {
    return this.options.stage < 3 || this.#gathered !== undefined;
  }

  get isGathered(): boolean {
    return this.#gathered !== undefined;
  }

  get users(): number {
    return this.#working.users;
  }

  gather(communicator: Communicator): void {
    if (this.isWhole) return;
    this.#gathered = this.#empty(this.layout.padded);
    const name = `gather ${this.layout.keeping} ${this.index} ${this.layout.name}`;
    const { codes, scales } = this.#gathered;
    this.#pending = [
      communicator.allGather(codes, this.codes.codes, name),
      communicator.allGather(scales, this.codes.scales, `${name} scales`),
    ];
  }

  wait(): void {
    for (const work of this.#pending) work.wait();
    this.#pending = [];
  }

  release(): void {
    this.wait();
    this.#gathered?.dispose();
    this.#gathered = undefined;
  }

  /** The value of a parameter, once gathered: borrowed until `done`. */
  use(parameter: Parameter): Tensor {
    return this.#working.use(parameter, () => this.values(this.layout.placementOf(parameter), parameter.shape, this.options.dtype));
  }

  done(parameter: Parameter): void {
    this.#working.done(parameter);
  }

  gradientTarget(parameter: Parameter): never {
    throw frozenError(this.layout.placementOf(parameter).name);
  }

  /** What a parameter's codes stand for, once gathered; the caller's. */
  values({ offset, numel }: Placement, shape: Shape, dtype: FloatDType): Tensor {
    const part = (this.#gathered ?? this.codes).narrow(offset, numel);
    try {
      return part.values(shape, dtype);
    } finally {
      part.dispose();
    }
  }

  /** Codes of elements that this rank keeps; the caller's. */
  part(start: number, end: number): Quantized {
    return this.codes.narrow(start - this.kept.start, end - start);
  }

  dispose(): void {
    this.release();
    this.#working.dispose();
    this.codes.dispose();
  }

  #empty(elements: number): Quantized {
    return Quantized.empty(this.options.device, this.layout.keeping as Quantized['format'], elements, { kind: 'parameters', shared: true });
  }
}

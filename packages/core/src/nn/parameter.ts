import type { Communicator } from '../comm/communicator.js';
import type { DType } from '../dtype.js';
import { DeepSpeedError } from '../errors.js';
import { accumulate } from '../ops/accumulate.js';
import { cast } from '../ops/cast.js';
import type { GradientTarget } from '../ops/define-op.js';
import { launch } from '../ops/launch.js';
import type { QuantizedFormat } from '../ops/quantized-format.js';
import type { Device } from '../tensor/device.js';
import type { Shape, Tensor, TensorSpec } from '../tensor/tensor.js';
import { numelOf } from '../tensor/tensor.js';
import type { Initializer } from './init.js';

/**
 * Where weights live. Ops borrow a full value with `use` and hand it back with `done`, in forward, backward and generation
 * alike; in between the store may shard it, gather it or fetch it from elsewhere. It may prefetch from the order it saw:
 * another order costs speed, never correctness.
 */
export interface ParameterStore {
  /** The full value in the compute dtype. Borrowed: valid until `done`, never disposed by the borrower. */
  use(parameter: Parameter): Tensor;
  done(parameter: Parameter): void;
  /** Where to write (or add) a gradient of `parameter` now. */
  gradientTarget(parameter: Parameter): GradientTarget;
  /** The gradient of `parameter` will get no more additions in this backward pass. */
  onGradient(parameter: Parameter): void;
  /** Lets go of what is whole only because it was used; it comes together again when it is. */
  releaseGathered?(): void;
  /** The dtype that `use` gives. */
  readonly dtype: DType;
  /** Where `use` gives it. */
  readonly device: Device;
  /** The ranks that gather weights from each other: all of them use the same parameters in the same order. Absent: each has its own. */
  readonly together?: Communicator | undefined;
}

/**
 * A handle to a weight: its logical shape and how it begins, but not its value, which a ParameterStore keeps. Building a model
 * of any size costs no memory until a store takes it.
 */
export class Parameter implements TensorSpec {
  requiresGrad = true;
  /** What a store keeps it as while it is frozen: codes of that format, which it makes values of when they are used. Default: as it is. */
  storage: QuantizedFormat | undefined;
  #store: ParameterStore | undefined;

  constructor(
    readonly shape: Shape,
    readonly init: Initializer,
  ) {}

  get numel(): number {
    return numelOf(this.shape);
  }

  get dtype(): DType {
    return this.store.dtype;
  }

  /** Whether a store has it. */
  get isStored(): boolean {
    return this.#store !== undefined;
  }

  get store(): ParameterStore {
    if (!this.#store) {
      throw new DeepSpeedError(
        'ERR_NO_STORE',
        `a parameter of shape [${this.shape.join(', ')}] has no storage yet: pass its model to initialize(), or to new LocalStore(model, device)`,
      );
    }
    return this.#store;
  }

  /** Gives the parameter a home; `undefined` takes it away. A parameter has one store at a time. */
  attach(store: ParameterStore | undefined): void {
    if (store && this.#store)
      throw new DeepSpeedError('ERR_STORE_TAKEN', 'this model is already held by another store or engine; dispose that one first');
    this.#store = store;
  }

  use(): Tensor {
    return this.store.use(this);
  }

  done(): void {
    this.store.done(this);
  }

  gradientTarget(): GradientTarget {
    return this.store.gradientTarget(this);
  }

  addGradient(gradient: Tensor): void {
    const target = this.gradientTarget();
    if (target.accumulate) launch(accumulate, [gradient], [target.tensor], { alpha: 1 });
    else launch(cast, [gradient], [target.tensor], {});
  }

  gradientFinal(): void {
    this.store.onGradient(this);
  }
}

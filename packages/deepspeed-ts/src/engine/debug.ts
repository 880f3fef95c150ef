import { DeepSpeedError, type Shape } from '@deepspeed-ts/core';
import { GRADIENT, type LocalValues } from '@deepspeed-ts/zero';
import { agree } from '../checkpoint/agreement.js';
import type { EngineParts } from './parts.js';
import type { Training } from './training.js';

/** A whole parameter's values, row-major. */
export interface FullValues {
  readonly shape: Shape;
  readonly data: Float32Array;
}

/**
 * Looks at and changes the state of single parameters, in f32 whatever it is kept in, with the same result at every stage. `Full` is the
 * whole parameter, `Local` the part that belongs to this rank: its slice, at stage 0 too, so that all ranks together have everything once.
 *
 * - `Parameter`: master weights. Setting them sets the low-precision copies of all ranks too.
 * - `Gradient`: of the mean loss, as far as it has been accumulated: averaged over ranks, divided by the loss scale, not clipped.
 *   There between `backward()` and the `step()` that ends the step; `undefined` else, and for frozen parameters. What is set is what the
 *   step uses, rounded to the dtype of gradients.
 * - `OptimizerState`: by the optimizer's name for it, such as 'exp_avg'; `undefined` for a parameter of which it keeps none. What is kept in
 *   8 bits can be read and not set.
 *
 * Every rank makes the same call, between forward and backward passes; only `getLocal...` asks nobody. Setters of `Full` take the values of
 * rank 0. An unknown name is an error on every rank that tells the nearest.
 */
export class DebugAccess {
  readonly #parts: EngineParts;
  readonly #training: Training;

  constructor(parts: EngineParts, training: Training) {
    this.#parts = parts;
    this.#training = training;
  }

  getFullParameter(name: string): Promise<FullValues> {
    return this.#getFull('weights', name) as Promise<FullValues>;
  }

  setFullParameter(name: string, values: ArrayLike<number>): Promise<void> {
    return this.#setFull('weights', name, values);
  }

  async getFullGradient(name: string): Promise<FullValues | undefined> {
    this.#assertReduced('getFullGradient');
    const values = await this.#getFull(GRADIENT, name);
    return values && { ...values, data: scaled(values.data, 1 / this.#scale) };
  }

  /** @throws DeepSpeedError on every rank, where there is no gradient now */
  async setFullGradient(name: string, values: ArrayLike<number>): Promise<void> {
    this.#assertReduced('setFullGradient');
    return this.#setFull(GRADIENT, name, scaled(values, this.#scale));
  }

  getFullOptimizerState(name: string, state: string): Promise<FullValues | undefined> {
    return this.#getFull(state, name, 'state');
  }

  setFullOptimizerState(name: string, state: string, values: ArrayLike<number>): Promise<void> {
    return this.#setFull(state, name, values, 'state');
  }

  getLocalParameter(name: string): Promise<LocalValues> {
    return this.#access.readLocal('weights', name) as Promise<LocalValues>;
  }

  setLocalParameter(name: string, values: ArrayLike<number>): Promise<void> {
    return this.#setLocal('weights', name, values);
  }

  async getLocalGradient(name: string): Promise<LocalValues | undefined> {
    this.#assertReduced('getLocalGradient');
    const part = await this.#access.readLocal(GRADIENT, name);
    return part && { ...part, data: scaled(part.data, 1 / this.#scale) };
  }

  /** @throws DeepSpeedError on every rank, where there is no gradient now */
  async setLocalGradient(name: string, values: ArrayLike<number>): Promise<void> {
    this.#assertReduced('setLocalGradient');
    return this.#setLocal(GRADIENT, name, scaled(values, this.#scale));
  }

  async getLocalOptimizerState(name: string, state: string): Promise<LocalValues | undefined> {
    this.#assertState(state);
    return this.#access.readLocal(state, name);
  }

  setLocalOptimizerState(name: string, state: string, values: ArrayLike<number>): Promise<void> {
    return this.#setLocal(state, name, values, 'state');
  }

  get #access() {
    return this.#parts.store.access;
  }

  /** What gradients are held multiplied with. */
  get #scale(): number {
    return this.#training.backwardScale ?? 1;
  }

  async #getFull(kind: string, name: string, what?: 'state'): Promise<FullValues | undefined> {
    const access = this.#access;
    await this.#together('get', kind, name, () => this.#check(kind, name, what));
    const data = await access.readFull(kind, name);
    return data && { shape: access.check(kind, name).parameter.shape, data };
  }

  async #setFull(kind: string, name: string, values: ArrayLike<number>, what?: 'state'): Promise<void> {
    const access = this.#access;
    await this.#together('set', kind, name, () => {
      this.#check(kind, name, what);
      access.checkFull(kind, name, values.length);
    });
    access.writeFull(kind, name, values);
  }

  async #setLocal(kind: string, name: string, values: ArrayLike<number>, what?: 'state'): Promise<void> {
    const access = this.#access;
    await this.#together('setLocal', kind, name, () => {
      this.#check(kind, name, what);
      access.checkLocal(kind, name, values.length);
    });
    access.writeLocal(kind, name, values);
  }

  #check(kind: string, name: string, what: 'state' | undefined): void {
    if (what) this.#assertState(kind);
    this.#access.check(kind, name);
  }

  /** Weights and gradients are no states of the optimizer, though the store knows all of them by one kind of name. */
  #assertState(state: string): void {
    if (state !== 'weights' && state !== GRADIENT) return;
    const names = this.#parts.store.stateNames.join(', ');
    throw new DeepSpeedError('ERR_UNKNOWN_STATE', `expected a state of the optimizer (${names || 'it has none'}), got '${state}'`);
  }

  #assertReduced(method: string): void {
    if (!this.#parts.store.hasUnreduced) return;
    throw new DeepSpeedError(
      'ERR_NO_SYNC',
      `[${method}] gradients of noSync() have not been reduced yet; run a backward pass outside first`,
    );
  }

  /** Makes sure that every rank asks for the same, and can have it, before any goes on. */
  async #together(verb: string, kind: string, name: string, check: () => void): Promise<void> {
    const { communicator, device } = this.#parts;
    const asked = await agree(
      communicator,
      device,
      async () => {
        check();
        return `${verb} ${kind} of ${name}`;
      },
      ({ code, message }, rank) => new DeepSpeedError(code, message.startsWith('[rank ') ? message : `[rank ${rank}] ${message}`),
    );
    const other = asked.findIndex((request) => request !== asked[0]);
    if (other < 0) return;
    const text = `expected the same call on every rank, got '${asked[0]}' on rank 0 and '${asked[other]}' on rank ${other}`;
    throw new DeepSpeedError('ERR_COLLECTIVE_MISMATCH', `[debug] ${text}`);
  }
}

function scaled(values: ArrayLike<number>, factor: number): Float32Array {
  return Float32Array.from(values, (value) => value * factor);
}

import {
  DeepSpeedError,
  hostTensor,
  initialise,
  type Parameter,
  readWeights,
  type Tensor,
  type WeightPart,
  type WeightSource,
  write,
} from '@deepspeed-ts/core';
import type { UnitState } from './unit-state.js';

export interface InitialWeightsOptions {
  /** Seed of the initial values. */
  readonly seed?: number;
  /** Values to begin with instead: by name, the whole parameter. `undefined` for one leaves it to `weights`, else to its initialiser. */
  readonly initial?: (name: string, parameter: Parameter) => ArrayLike<number> | undefined;
  /** Where values come from instead, of parameters that it has: they are unset until `loadWeights`. */
  readonly weights?: WeightSource | undefined;
}

/** What parameters begin with: values given, else those of a source, else their initialisers'. */
export class InitialWeights {
  readonly #options: InitialWeightsOptions;
  /** Names of what waits for the source. */
  readonly #unset = new Set<string>();

  constructor(options: InitialWeightsOptions) {
    this.#options = options;
  }

  /** Writes elements of a parameter from `start` on, unless they come from the source. */
  write(name: string, parameter: Parameter, target: Tensor, start: number): void {
    const { seed = 0, initial, weights } = this.#options;
    const given = initial?.(name, parameter);
    if (!given) {
      if (weights?.has(name)) this.#unset.add(name);
      else initialise(parameter.init, { seed, name }, target, start);
      return;
    }
    if (given.length !== parameter.numel) {
      throw new DeepSpeedError(
        'ERR_SHAPE',
        `[ZeroStore] ${name} has shape [${parameter.shape.join(', ')}], but ${given.length} initial values were given`,
      );
    }
    const values = Float64Array.from({ length: target.numel }, (_, i) => given[start + i]!);
    write(target, hostTensor(target.shape, target.dtype, values));
  }

  /** Reads from the source what waits for it, of each unit the master weights that this rank owns. Gives the units that changed, the same on every rank. */
  async read(units: readonly UnitState[]): Promise<UnitState[]> {
    const { weights } = this.#options;
    if (!weights || this.#unset.size === 0) return [];
    const changed: UnitState[] = [];
    const parts: WeightPart[] = [];
    try {
      for (const unit of units) {
        for (const { key, start, end } of unit.layout.segments(unit.owned, (placement) => placement)) {
          if (!this.#unset.has(key.name)) continue;
          const target = unit.master.narrow(start - unit.owned.start, end - start).keep();
          parts.push({ name: key.name, start: start - key.offset, target });
        }
        if (unit.layout.placements.some(({ name }) => this.#unset.has(name))) changed.push(unit);
      }
      await readWeights(weights, parts);
      this.#unset.clear();
      return changed;
    } finally {
      for (const { target } of parts) target.dispose();
      weights.close();
    }
  }
}

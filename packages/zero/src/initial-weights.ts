import {
  DeepSpeedError,
  hostTensor,
  initialise,
  type Parameter,
  type Quantized,
  readWeights,
  type Tensor,
  unscoped,
  type WeightPart,
  type WeightSource,
  write,
} from '@deepspeed-ts/core';
import type { Range } from './layout.js';
import { QuantizedUnit } from './quantized-unit.js';
import { UnitState } from './unit-state.js';

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

  /** Reads from the source what waits for it, of each unit the master weights or codes that this rank keeps. Gives the units whose weights changed, the same on every rank. */
  async read(parts: readonly (UnitState | QuantizedUnit)[]): Promise<UnitState[]> {
    const { weights } = this.#options;
    if (!weights || this.#unset.size === 0) return [];
    const changed: UnitState[] = [];
    const wanted: WeightPart[] = [];
    try {
      for (const part of parts) {
        for (const { key, start, end } of part.layout.segments(ownRange(part), (placement) => placement)) {
          if (!this.#unset.has(key.name)) continue;
          wanted.push({ name: key.name, start: start - key.offset, target: ownPart(part, start, end) });
        }
        if (part instanceof UnitState && part.layout.placements.some(({ name }) => this.#unset.has(name))) changed.push(part);
      }
      await readWeights(weights, wanted);
      this.#unset.clear();
      return changed;
    } finally {
      for (const { target } of wanted) target.dispose();
      weights.close();
    }
  }
}

/** The elements of a unit that a rank reads. */
function ownRange(part: UnitState | QuantizedUnit): Range {
  return part instanceof UnitState ? part.owned : part.kept;
}

/** Where some of them go; the caller's. */
function ownPart(part: UnitState | QuantizedUnit, start: number, end: number): Tensor | Quantized {
  if (part instanceof QuantizedUnit) return part.part(start, end);
  return unscoped(() => part.master.narrow(start - part.owned.start, end - start));
}

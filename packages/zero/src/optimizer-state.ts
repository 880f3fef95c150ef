import { cast, type Device, type DType, decode8bit, empty, fill, launch, scope, type Tensor } from '@deepspeed-ts/core';
import type { Placement, Range, UnitLayout } from './layout.js';
import type { StateSpec } from './optimizer.js';

/** Elements of the unit that lie together in a state, and where their values begin there. */
interface Run extends Range {
  readonly at: number;
}

/**
 * One kind of optimizer state of a unit, of the elements that this rank owns: parameters that have no such state are left out, so that it
 * costs only what is used.
 */
export class OptimizerState {
  readonly spec: StateSpec;
  /** The values of all runs, one after the other. */
  readonly tensor: Tensor;
  /** Elements that share a value. */
  readonly every: number;
  readonly #runs: readonly Run[];
  readonly #covered: ReadonlySet<Placement>;

  /** `moments` is the dtype where the spec names none. */
  constructor(
    device: Device,
    spec: StateSpec,
    readonly layout: UnitLayout,
    readonly owned: Range,
    moments: DType,
    covers: (placement: Placement) => boolean,
  ) {
    this.spec = spec;
    this.every = spec.every ?? 1;
    this.#covered = new Set(layout.placements.filter(covers));
    // With padding, where nothing is left out: one piece of memory like the weights'.
    const whole = this.#covered.size === layout.placements.length;
    const ranges = whole ? [owned] : layout.segments(owned, (placement) => this.#covered.has(placement) || undefined);
    let at = 0;
    this.#runs = ranges.map(({ start, end }) => {
      const run = { start, end, at };
      at += Math.ceil((end - start) / this.every);
      return run;
    });
    this.tensor = empty(device, [at], spec.dtype ?? moments, { kind: 'optimizer' });
    if (at > 0) fill(this.tensor, 0);
  }

  covers(placement: Placement): boolean {
    return this.#covered.has(placement);
  }

  /** Values of a parameter. */
  sizeOf(placement: Placement): number {
    return this.covers(placement) ? Math.ceil(placement.numel / this.every) : 0;
  }

  /** Where the values of elements `start` to `end` of the unit lie in the tensor. They lie together: there is nothing else between them. */
  indexOf({ start, end }: Range): { at: number; count: number } {
    const run = this.#runs.find((run) => run.start <= start && end <= run.end)!;
    return { at: run.at + (start - run.start) / this.every, count: Math.ceil((end - start) / this.every) };
  }

  /** A view of the values of such elements. */
  part(range: Range): Tensor {
    const { at, count } = this.indexOf(range);
    return this.tensor.narrow(at, count);
  }

  /** The parts of parameters that have this state and lie in a range. */
  segments(range: Range): { key: Placement; start: number; end: number }[] {
    return this.layout.segments(range, (placement) => (this.covers(placement) ? placement : undefined));
  }

  dispose(): void {
    this.tensor.dispose();
  }
}

/** The states of a unit that `kind` names: as they are, or as codes. */
export function statesNamed(states: readonly OptimizerState[], kind: string): OptimizerState[] {
  return states.filter(({ spec }) => spec.name === kind || spec.codes?.of === kind);
}

/** The names under which states are read: codes under that of what they stand for. */
export function readableNames(specs: readonly StateSpec[]): string[] {
  const scales = new Set(specs.flatMap(({ codes }) => (codes ? [codes.scales] : [])));
  return [...new Set(specs.filter(({ name }) => !scales.has(name)).map(({ name, codes }) => codes?.of ?? name))];
}

/** The values of elements of one parameter: what `state` holds of them, or f32 that codes stand for. A tensor of the caller's scope. */
export function valuesOf(states: readonly OptimizerState[], state: OptimizerState, range: Range): Tensor {
  if (!state.spec.codes) return state.part(range);
  const { scales, signed } = state.spec.codes;
  return scope(() => {
    const values = empty(state.tensor.device, [range.end - range.start], 'f32', { kind: 'communication' });
    const scale = states.find(({ spec }) => spec.name === scales)!;
    launch(decode8bit, [state.part(range), scale.part(range)], [values], { signed: Number(signed) });
    return values;
  });
}

/** A kind of state over all that the rank owns of a unit, zeros where there is none. The caller disposes it. */
export function flatten(states: readonly OptimizerState[], kind: string, owned: Range): Tensor {
  const named = statesNamed(states, kind);
  const [only] = named;
  if (only && !only.spec.codes && only.tensor.numel === owned.end - owned.start) return only.tensor.retain();
  return scope(() => {
    const { device } = states[0]!.tensor;
    const dtype = named.some(({ spec }) => spec.codes) ? 'f32' : only!.tensor.dtype;
    const flat = empty(device, [owned.end - owned.start], dtype, { kind: 'communication', shared: true });
    fill(flat, 0);
    for (const state of named) {
      for (const { start, end } of state.segments(owned)) {
        const values = valuesOf(states, state, { start, end });
        launch(cast, [values], [flat.narrow(start - owned.start, end - start)], {});
        if (state.spec.codes) values.dispose();
      }
    }
    return flat;
  }).keep();
}

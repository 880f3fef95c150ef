import type { Communicator } from '../comm/communicator.js';
import { WorldOfOne } from '../comm/world-of-one.js';
import { fp8Advance } from '../ops/fp8-advance.js';
import { launch } from '../ops/launch.js';
import type { Fp8Layer } from '../ops/linear-fp8.js';
import { full, write } from '../tensor/create.js';
import type { Device } from '../tensor/device.js';
import { type HostTensor, hostTensor } from '../tensor/host.js';
import type { Tensor } from '../tensor/tensor.js';
import { Linear } from './layers.js';
import { type Module, namedModules } from './module.js';

export interface Fp8Options {
  /** Steps whose largest magnitudes count for a scale; default 1024. */
  readonly history?: number;
  /** 'max' takes the largest of the history, 'most_recent' the last step's. Default 'max'. */
  readonly amax?: 'max' | 'most_recent';
  /** Powers of two left between the largest magnitude and the end of a format's range; default 0. */
  readonly margin?: number;
  /** Products of the backward pass may keep fewer bits of their sums; default false. */
  readonly fastBackward?: boolean;
  /** Ranks that train the same model: they agree on every scale. Default: a world of one. */
  readonly communicator?: Communicator;
}

/** What 8-bit training goes on from: scales, magnitudes and their histories, f32 [3, 2 + history] by layer. */
export interface Fp8State {
  readonly steps: number;
  readonly layers: ReadonlyMap<string, HostTensor>;
}

/**
 * The linear layers of a model in 8 bits (delayed scaling, arXiv:2209.05433): values in e4m3, gradients in e5m2, each tensor with a
 * scale from the magnitudes of the steps before. Heads and layers whose sizes are no multiples of 16 stay as they are. Scales hold
 * for a whole step, so a recomputed block has the bits of its first pass; the first step measures every tensor before it casts it.
 */
export class Fp8Training {
  /** f32 [layers, 3, 2 + history]. */
  readonly #states: Tensor;
  readonly #names: string[];
  readonly #layers: Linear[];
  readonly #communicator: Communicator;
  readonly #views: Tensor[];
  readonly #recipe: { calibrate: number; margin: number; fastBackward: number };
  readonly #history: number;
  readonly #latest: number;
  #steps = 0;

  constructor(model: Module, device: Device, options: Fp8Options = {}) {
    const { history = 1024, amax = 'max', margin = 0, fastBackward = false, communicator = new WorldOfOne() } = options;
    const chosen = [...namedModules(model)].flatMap(([name, module]) =>
      module instanceof Linear && fits(module) ? [{ name, module }] : [],
    );
    this.#names = chosen.map(({ name }) => name);
    this.#layers = chosen.map(({ module }) => module);
    this.#communicator = communicator;
    this.#recipe = { calibrate: 1, margin, fastBackward: Number(fastBackward) };
    this.#history = history;
    this.#latest = Number(amax === 'most_recent');
    this.#states = full(device, [this.#layers.length, 3, 2 + history], 'f32', 0, { kind: 'optimizer' }).keep();
    this.#views = this.#layers.map((_, i) => {
      using row = this.#states.narrow(i, 1);
      return row.view([3, 2 + history]).keep();
    });
    for (const [i, layer] of this.#layers.entries()) layer.fp8 = this.#layer(i);
  }

  /** Layers that multiply in 8 bits. */
  get layers(): number {
    return this.#layers.length;
  }

  /** After every optimizer step: the magnitudes that any rank has seen set the next scales. */
  advance(): void {
    if (this.#layers.length === 0) return;
    // Everything but the magnitudes is the same on all ranks already.
    this.#communicator.allReduce(this.#states, 'max').wait();
    const place = this.#steps++ % this.#history;
    launch(fp8Advance, [], [this.#states], { place, margin: this.#recipe.margin, latest: this.#latest });
    this.#recipe.calibrate = 0;
  }

  /** Call it between steps; every rank has the same. */
  async state(): Promise<Fp8State> {
    const { shape, data } = await this.#states.read();
    const size = data.length / shape[0]!;
    const rows = this.#names.map((name, i) => [name, hostTensor([3, size / 3], 'f32', data.subarray(i * size, (i + 1) * size))] as const);
    return { steps: this.#steps, layers: new Map(rows) };
  }

  /** Goes on from a state; layers that it lacks, or whose history was of another length, measure anew in the next step, and so do all others. */
  load({ steps, layers }: Fp8State): void {
    const size = 3 * (2 + this.#history);
    const known = this.#names.map((name) => layers.get(name)?.data).filter((data) => data?.length === size);
    if (known.length < this.#names.length) return;
    for (const [i, view] of this.#views.entries()) write(view, hostTensor(view.shape, 'f32', known[i]!));
    this.#steps = steps;
    this.#recipe.calibrate = steps > 0 ? 0 : 1;
  }

  /** The layers go back to the precision of their weights. */
  dispose(): void {
    for (const layer of this.#layers) layer.fp8 = undefined;
    for (const view of this.#views) view.dispose();
    this.#states.dispose();
  }

  #layer(i: number): Fp8Layer {
    return { state: this.#views[i]!, recipe: this.#recipe };
  }
}

/** A unit of its own is a head; it stays as it is. */
function fits({ isUnit, weight }: Linear): boolean {
  return !isUnit && weight.shape.every((size) => size % 16 === 0);
}

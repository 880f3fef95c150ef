import {
  backward,
  bytesOf,
  Device,
  type FloatDType,
  fromHost,
  full,
  hostTensor,
  init,
  Module,
  mul,
  Parameter,
  ReferenceBackend,
  scope,
  type Tensor,
  uniforms,
} from '@deepspeed-ts/core';
import { expect } from 'vitest';
import type { StateBytes, StateSource } from '../local-state.js';
import type { Optimizer } from '../optimizer.js';
import { ZeroStore, type ZeroStoreOptions } from '../store.js';

export const SHAPES = { wide: [5, 9], tall: [33, 10], row: [53] } as const;
export type Name = keyof typeof SHAPES;
export const NAMES = Object.keys(SHAPES) as Name[];

/** The gradient of each parameter is the input of its name. */
export class Products extends Module<[Record<Name, Tensor>], Tensor[]> {
  readonly wide = new Parameter(SHAPES.wide, init.normal(1));
  readonly tall = new Parameter(SHAPES.tall, init.normal(1));
  readonly row = new Parameter(SHAPES.row, init.normal(1));

  forward(inputs: Record<Name, Tensor>): Tensor[] {
    return NAMES.map((name) => mul(this[name], inputs[name]));
  }
}

export const sizeOf = (name: Name) => SHAPES[name].reduce((a: number, b) => a * b, 1);
const streamOf = (name: Name) => NAMES.indexOf(name);
export const weightOf = (name: Name) => uniforms({ seed: 1, stream: streamOf(name) }, 0, sizeOf(name));
/** Small whole numbers over 8: exact in every dtype. */
export const gradientOf = (name: Name, step: number) =>
  Array.from(uniforms({ seed: 2, step, stream: streamOf(name) }, 0, sizeOf(name)), (u) => Math.round(16 * u - 8) / 8);

export type Values = Record<Name, number[]>;

interface Training {
  readonly steps?: number;
  readonly gradients?: typeof gradientOf;
  /** The step before which everything is saved, and goes on in another store. */
  readonly resumeAt?: number;
}

interface Trained {
  readonly weights: Values;
  state(kind: string): Promise<Partial<Values>>;
  readonly device: Device;
}

/** Trains with an optimizer; each parameter's gradients come from `gradients`. */
export async function train<Options, T>(
  optimizer: Optimizer<Options>,
  options: Options,
  { steps = 4, gradients = gradientOf, resumeAt, ...store }: Training & Partial<ZeroStoreOptions<Options>>,
  body: (trained: Trained) => Promise<T>,
): Promise<T> {
  const device = new Device(new ReferenceBackend());
  const model = new Products();
  const dtype: FloatDType = store.dtype ?? 'f32';
  const open = () => new ZeroStore(model, { device, stage: 3, optimizer, initial: (name) => weightOf(name as Name), ...store });
  let held = open();
  for (let t = 1; t <= steps; t++) {
    if (t === resumeAt) {
      const saved = await saveState(held);
      held.dispose();
      held = open();
      await held.loadState(saved, { steps: t - 1 });
    }
    scope(() => {
      const entries = NAMES.map((name) => [name, fromHost(device, hostTensor(SHAPES[name], dtype, gradients(name, t)))] as const);
      for (const y of model.call(Object.fromEntries(entries) as Record<Name, Tensor>)) backward(y, full(device, y.shape, dtype, 1));
    });
    held.finishBackward();
    // As if backward had been scaled by 2.
    held.step({ optionsOf: () => options, gradScale: 0.5 });
    await held.finishStep();
  }
  const read = async (kind: string) => {
    const values: Partial<Values> = {};
    for await (const [name, { data }] of held.export(kind)) values[name as Name] = Array.from(data);
    return values;
  };
  const result = await body({ weights: (await read('weights')) as Values, state: read, device });
  held.dispose();
  expect(device.describeLive()).toEqual([]);
  return result;
}

/** All state, in memory. */
async function saveState(store: ZeroStore<never>): Promise<StateSource> {
  const parts = new Map<string, { start: number; dtype: StateBytes['dtype']; bytes: Uint8Array }[]>();
  for (const { kind, name, start, dtype, read } of store.localState()) {
    const key = `${kind}/${name}`;
    parts.set(key, [...(parts.get(key) ?? []), { start, dtype, bytes: await read() }]);
  }
  return {
    has: (kind, name) => parts.has(`${kind}/${name}`),
    async read(kind, name, from, count) {
      const [part, ...more] = parts.get(`${kind}/${name}`)!;
      // A single rank has each in one part.
      expect(more).toEqual([]);
      const width = bytesOf(part!.dtype);
      return { dtype: part!.dtype, bytes: part!.bytes.slice((from - part!.start) * width, (from - part!.start + count) * width) };
    },
  };
}

export function norm(x: readonly number[]): number {
  return Math.hypot(...x);
}

export function expectClose(actual: readonly number[], expected: readonly number[], tolerance: number): void {
  expect(actual.length).toBe(expected.length);
  for (const [i, value] of expected.entries()) {
    expect(Math.abs(actual[i]! - value), `element ${i}: ${actual[i]} for ${value}`).toBeLessThan(tolerance * (1 + Math.abs(value)));
  }
}

import {
  backward,
  CODE_BLOCK,
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
import { describe, expect, it } from 'vitest';
import type { Optimizer } from '../optimizer.js';
import { ZeroStore, type ZeroStoreOptions } from '../store.js';
import { adam, adamw8bit, lamb, muon, orthogonalize } from './index.js';

const SHAPES = { wide: [5, 9], tall: [33, 10], row: [53] } as const;
type Name = keyof typeof SHAPES;
const NAMES = Object.keys(SHAPES) as Name[];

/** The gradient of each parameter is the input of its name. */
class Products extends Module<[Record<Name, Tensor>], Tensor[]> {
  readonly wide = new Parameter(SHAPES.wide, init.normal(1));
  readonly tall = new Parameter(SHAPES.tall, init.normal(1));
  readonly row = new Parameter(SHAPES.row, init.normal(1));

  forward(inputs: Record<Name, Tensor>): Tensor[] {
    return NAMES.map((name) => mul(this[name], inputs[name]));
  }
}

const sizeOf = (name: Name) => SHAPES[name].reduce((a: number, b) => a * b, 1);
const streamOf = (name: Name) => NAMES.indexOf(name);
const weightOf = (name: Name) => uniforms({ seed: 1, stream: streamOf(name) }, 0, sizeOf(name));
/** Small whole numbers over 8: exact in every dtype. */
const gradientOf = (name: Name, step: number) =>
  Array.from(uniforms({ seed: 2, step, stream: streamOf(name) }, 0, sizeOf(name)), (u) => Math.round(16 * u - 8) / 8);

type Values = Record<Name, number[]>;

interface Trained {
  readonly weights: Values;
  state(kind: string): Promise<Partial<Values>>;
  readonly device: Device;
}

/** Trains with an optimizer; each parameter's gradients come from `gradients`. */
async function train<Options, T>(
  optimizer: Optimizer<Options>,
  options: Options,
  { steps = 4, gradients = gradientOf, ...store }: { steps?: number; gradients?: typeof gradientOf } & Partial<ZeroStoreOptions<Options>>,
  body: (trained: Trained) => Promise<T>,
): Promise<T> {
  const device = new Device(new ReferenceBackend());
  const model = new Products();
  const dtype: FloatDType = store.dtype ?? 'f32';
  const held = new ZeroStore(model, { device, stage: 3, optimizer, initial: (name) => weightOf(name as Name), ...store });
  for (let t = 1; t <= steps; t++) {
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

describe('LAMB', () => {
  const betas = [0.9, 0.99] as const;
  const options = {
    lr: 0.1,
    betas,
    eps: 1e-6,
    weightDecay: 0.05,
    biasCorrection: true,
    epsInsideRoot: false,
    minCoeff: 0.01,
    maxCoeff: 10,
  };

  /** Algorithm 2 of You et al. for one parameter, in doubles. */
  function reference(name: Name, { biasCorrection, epsInsideRoot, minCoeff, maxCoeff, weightDecay, eps, lr }: typeof options): number[] {
    let p = Array.from(weightOf(name));
    const m = p.map(() => 0);
    const v = p.map(() => 0);
    for (let t = 1; t <= 4; t++) {
      const update = gradientOf(name, t).map((gradient, i) => {
        const g = 0.5 * gradient;
        m[i] = 0.9 * m[i]! + 0.1 * g;
        v[i] = 0.99 * v[i]! + 0.01 * g * g;
        const first = m[i]! / (biasCorrection ? 1 - 0.9 ** t : 1);
        const second = v[i]! / (biasCorrection ? 1 - 0.99 ** t : 1);
        return first / (epsInsideRoot ? Math.sqrt(second + eps) : Math.sqrt(second) + eps) + weightDecay * p[i]!;
      });
      const ratio = Math.min(Math.max(norm(p) / norm(update), minCoeff), maxCoeff);
      p = p.map((value, i) => value - lr * ratio * update[i]!);
    }
    return p;
  }

  it.each([
    ['as the paper writes it', options],
    ['without bias correction', { ...options, biasCorrection: false }],
    ['with eps inside the root', { ...options, epsInsideRoot: true, eps: 1e-2 }],
    ['with a ratio that is held from above', { ...options, maxCoeff: 0.2 }],
    ['with a ratio that is held from below', { ...options, minCoeff: 3 }],
  ])('scales the step of each parameter by its own norms, %s', async (_, settings) => {
    await train(lamb, settings, {}, async ({ weights }) => {
      for (const name of NAMES) expectClose(weights[name], reference(name, settings), 1e-5);
    });
  });
});

describe('Muon', () => {
  const options = { lr: 0.1, weightDecay: 0.05, momentum: 0.9, nesterov: true, nsSteps: 5, betas: [0.9, 0.99] as const, eps: 1e-8 };
  const hidden = (name: string) => name !== 'row';

  function matrixReference(name: 'wide' | 'tall', nesterov: boolean): number[] {
    const [rows, columns] = SHAPES[name];
    let p = Array.from(weightOf(name));
    let m = p.map(() => 0);
    for (let t = 1; t <= 4; t++) {
      const g = gradientOf(name, t).map((gradient) => 0.5 * gradient);
      m = m.map((value, i) => 0.9 * value + 0.1 * g[i]!);
      const update = newtonSchulz(nesterov ? m.map((value, i) => 0.9 * value + 0.1 * g[i]!) : m, rows, columns);
      const gain = Math.sqrt(Math.max(1, rows / columns));
      p = p.map((value, i) => value * (1 - options.lr * options.weightDecay) - options.lr * gain * update[i]!);
    }
    return p;
  }

  it.each([true, false])('moves matrices by their orthogonalised momentum, Nesterov %s, and all others by AdamW', async (nesterov) => {
    const settings = { ...options, nesterov };
    const row = await train(adam, { ...settings, decoupled: true, biasCorrection: true }, {}, async ({ weights }) => weights.row);
    await train(muon(hidden), settings, {}, async ({ weights, state }) => {
      expectClose(weights.wide, matrixReference('wide', nesterov), 1e-4);
      expectClose(weights.tall, matrixReference('tall', nesterov), 1e-4);
      expect(weights.row).toEqual(row);
      expect(Object.keys(await state('momentum_buffer'))).toEqual(['wide', 'tall']);
      expect(Object.keys(await state('exp_avg_sq'))).toEqual(['row']);
    });
  });

  it('keeps one state of a matrix, and two of what AdamW updates', async () => {
    await train(muon(hidden), options, {}, async ({ device }) => {
      expect(device.memory('optimizer').live).toBe(4 * (sizeOf('wide') + sizeOf('tall') + 2 * sizeOf('row')));
    });
  });

  it.each([
    [4, 4],
    [7, 16],
    [16, 7],
  ])('makes the singular values of a %i x %i matrix nearly 1', (rows, columns) => {
    const device = new Device(new ReferenceBackend());
    const values = Array.from(uniforms({ seed: 9 }, 0, rows * columns), (u) => 100 * (u - 0.5));
    const matrix = fromHost(device, hostTensor([rows, columns], 'f32', values));
    orthogonalize(matrix, 5);
    const result = Array.from(matrix.readSync().data);
    matrix.dispose();
    expectClose(result, newtonSchulz(values, rows, columns), 1e-4);
    // The trace of X X' is the sum of squared singular values, each between 0.7 and 1.2, up to smallest ones that need more rounds.
    const side = Math.min(rows, columns);
    expect(norm(result) ** 2 / side).toBeGreaterThan(0.5);
    expect(norm(result) ** 2 / side).toBeLessThan(1.45);
    expect(device.describeLive()).toEqual([]);
  });
});

describe('AdamW in 8 bits', () => {
  const options = { lr: 0.01, weightDecay: 0.05, betas: [0.9, 0.99] as const, eps: 1e-8, decoupled: true, biasCorrection: true };
  const all = adamw8bit(() => true);
  const large = adamw8bit((_, { numel }) => numel > 100);

  /** Seven decades of equally spaced values, twice as many in each as in the one below (Dettmers, arXiv:1511.04561); 0 and 1 besides. */
  function values(signed: boolean): number[] {
    const positive: number[] = [];
    for (let decade = 1; decade <= 7; decade++) {
      const count = 2 ** (signed ? decade - 1 : decade);
      const width = (10 ** (decade - 7) * 0.9) / count;
      for (let i = 0; i < count; i++) positive.push(Math.fround(10 ** (decade - 8) + width * (i + 0.5)));
    }
    return [...(signed ? positive.map((value) => -value) : []), 0, ...positive, 1];
  }

  /** The nearest of all values, tried one by one, times the scale. */
  function nearest(x: number, scale: number, among: readonly number[]): number {
    const ratio = Math.fround(x / scale);
    return Math.fround(among.reduce((best, value) => (Math.abs(value - ratio) < Math.abs(best - ratio) ? value : best)) * scale);
  }

  it('has 256 values for each moment', () => {
    for (const signed of [true, false]) expect(new Set(values(signed)).size).toBe(256);
  });

  it('keeps each moment as the nearest of them, by blocks of a parameter', async () => {
    // Without memory the moments are the gradient and its square, exactly.
    const gradients = (name: Name) => Array.from(weightOf(name), (u) => Math.fround((u - 0.5) ** 5));
    await train(all, { ...options, betas: [0, 0] as const }, { steps: 1, gradients }, async ({ state }) => {
      const first = await state('exp_avg');
      const second = await state('exp_avg_sq');
      for (const name of NAMES) {
        const m = gradients(name).map((g) => 0.5 * g);
        const v = m.map((g) => g * g);
        // A second moment that is not zero stays so.
        const atLeast = (scale: number, value: number) => Math.max(value, Math.fround(values(false)[1]! * scale));
        const scale = (moments: number[], i: number) => {
          const start = i - (i % CODE_BLOCK);
          return Math.fround(Math.max(...moments.slice(start, start + CODE_BLOCK).map(Math.abs)));
        };
        expect(first[name]).toEqual(m.map((x, i) => nearest(x, scale(m, i), values(true))));
        expect(second[name]).toEqual(v.map((x, i) => atLeast(scale(v, i), nearest(x, scale(v, i), values(false)))));
      }
    });
  });

  it('never forgets that a second moment is not zero', async () => {
    // 1e-4 squared is nearer to zero than to the smallest of 256 values below 4 squared.
    const gradients = (name: Name) => Array.from({ length: sizeOf(name) }, (_, i) => (i === 0 ? 8 : 2e-4));
    await train(all, options, { steps: 1, gradients }, async ({ state }) => {
      expect(Math.min(...(await state('exp_avg_sq')).row!)).toBeGreaterThan(0);
    });
    // Where gradients vanish then, a first moment over a second one of zero would move weights by the first over eps.
    const vanishing = (name: Name, t: number) => gradients(name).map((g, i) => (t > 1 && i > 0 ? 0 : g));
    await train(all, { ...options, weightDecay: 0 }, { steps: 3, gradients: vanishing }, async ({ weights }) => {
      for (const [i, value] of weights.row.entries()) expect(Math.abs(value - weightOf('row')[i]!)).toBeLessThan(0.1);
    });
  });

  it('trains as AdamW does, up to what rounding moments to 8 bits costs, and equally where a parameter keeps 32', async () => {
    const exact = await train(adam, options, {}, async ({ weights }) => weights);
    await train(large, options, {}, async ({ weights }) => {
      for (const name of NAMES) expectClose(weights[name], exact[name], 5e-3);
      expect(weights.row).toEqual(exact.row);
      expect(weights.wide).toEqual(exact.wide);
      expect(weights.tall).not.toEqual(exact.tall);
    });
  });

  it('takes two bytes for each element and two scales for each block of them', async () => {
    await train(large, options, {}, async ({ device }) => {
      const blocks = Math.ceil(sizeOf('tall') / CODE_BLOCK);
      expect(device.memory('optimizer').live).toBe(2 * sizeOf('tall') + 2 * 4 * blocks + 2 * 4 * (sizeOf('wide') + sizeOf('row')));
    });
  });
});

describe('bf16 master weights and states', () => {
  const options = { lr: 0.03, weightDecay: 0.05, betas: [0.9, 0.99] as const, eps: 1e-8, decoupled: true, biasCorrection: true };
  const padded = 448;

  /** Nearest, ties to even. */
  function bf16(x: number): number {
    const bits = new Uint32Array(Float32Array.of(x).buffer);
    bits[0] = (bits[0]! + 0x7fff + ((bits[0]! >>> 16) & 1)) & 0xffff0000;
    return new Float32Array(bits.buffer)[0]!;
  }
  const as32 = (x: number) => Math.fround(x);

  it.each([
    ['both', bf16, bf16, { masterDtype: 'bf16', stateDtype: 'bf16' }],
    ['weights', bf16, as32, { masterDtype: 'bf16' }],
    ['states', as32, bf16, { stateDtype: 'bf16' }],
  ] as const)('round to nearest after formulas in f32: %s', async (_, keepWeight, keepState, dtypes) => {
    await train(adam, options, { dtype: 'bf16', ...dtypes }, async ({ weights, state }) => {
      for (const name of NAMES) {
        let p = Array.from(weightOf(name), keepWeight);
        let m = p.map(() => 0);
        let v = p.map(() => 0);
        for (let t = 1; t <= 4; t++) {
          const g = gradientOf(name, t).map((gradient) => 0.5 * gradient);
          const first = m.map((value, i) => 0.9 * value + 0.1 * g[i]!);
          const second = v.map((value, i) => 0.99 * value + 0.01 * g[i]! ** 2);
          const move = first.map((value, i) => (options.lr * (value / (1 - 0.9 ** t))) / (Math.sqrt(second[i]! / (1 - 0.99 ** t)) + 1e-8));
          p = p.map((value, i) => keepWeight(value - options.lr * options.weightDecay * value - move[i]!));
          [m, v] = [first.map(keepState), second.map(keepState)];
        }
        expectClose(weights[name], p, 1e-5);
        expectClose((await state('exp_avg'))[name]!, m, 1e-5);
        expectClose((await state('exp_avg_sq'))[name]!, v, 1e-5);
      }
    });
  });

  it.each([
    [{}, 12],
    [{ stateDtype: 'bf16' }, 8],
    [{ masterDtype: 'bf16' }, 8],
    [{ masterDtype: 'bf16', stateDtype: 'bf16' }, 4],
  ] as const)('with %j take %i bytes for each element besides the weights', async (dtypes, bytes) => {
    await train(adam, options, { steps: 1, dtype: 'bf16', ...dtypes }, async ({ device }) => {
      expect(device.memory('optimizer').live).toBe(bytes * padded);
    });
  });

  it('are refused over weights of another dtype', async () => {
    await expect(train(adam, options, { masterDtype: 'bf16' }, async () => {})).rejects.toThrow(
      /master weights in bf16 need weights in bf16, got f32/,
    );
  });
});

function norm(x: readonly number[]): number {
  return Math.hypot(...x);
}

/** The iteration of Jordan et al. in doubles, with the transpose that we leave out. */
function newtonSchulz(matrix: readonly number[], rows: number, columns: number): number[] {
  const size = norm(matrix) + 1e-7;
  if (rows > columns) return transposed(newtonSchulz(transposed(matrix, rows, columns), columns, rows), columns, rows);
  let x = matrix.map((value) => value / size);
  for (let step = 0; step < 5; step++) {
    const a = product(x, transposed(x, rows, columns), rows, columns, rows);
    const square = product(a, a, rows, rows, rows);
    const b = a.map((value, i) => -4.775 * value + 2.0315 * square[i]!);
    const next = product(b, x, rows, rows, columns);
    x = x.map((value, i) => 3.4445 * value + next[i]!);
  }
  return x;
}

function transposed(x: readonly number[], rows: number, columns: number): number[] {
  return Array.from({ length: rows * columns }, (_, i) => x[(i % rows) * columns + Math.floor(i / rows)]!);
}

function product(a: readonly number[], b: readonly number[], rows: number, inner: number, columns: number): number[] {
  return Array.from({ length: rows * columns }, (_, i) => {
    let sum = 0;
    for (let k = 0; k < inner; k++) sum += a[Math.floor(i / columns) * inner + k]! * b[k * columns + (i % columns)]!;
    return sum;
  });
}

function expectClose(actual: readonly number[], expected: readonly number[], tolerance: number): void {
  expect(actual.length).toBe(expected.length);
  for (const [i, value] of expected.entries()) {
    expect(Math.abs(actual[i]! - value), `element ${i}: ${actual[i]} for ${value}`).toBeLessThan(tolerance * (1 + Math.abs(value)));
  }
}

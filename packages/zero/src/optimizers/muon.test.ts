import { Device, fromHost, hostTensor, ReferenceBackend, uniforms } from '@deepspeed-ts/core';
import { describe, expect, it } from 'vitest';
import { adam, muon, orthogonalize } from './index.js';
import { expectClose, gradientOf, norm, SHAPES, sizeOf, train, weightOf } from './test-support.js';

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

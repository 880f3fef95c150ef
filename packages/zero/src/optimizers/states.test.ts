import { describe, expect, it } from 'vitest';
import type { Optimizer } from '../optimizer.js';
import { adam, adamw8bit, lamb, muon } from './index.js';
import { expectClose, gradientOf, NAMES, train, weightOf } from './test-support.js';

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

describe('a training that is saved and goes on elsewhere', () => {
  const options = { lr: 0.05, weightDecay: 0.05, betas: [0.9, 0.99] as const, eps: 1e-8, momentum: 0.9, nesterov: true, nsSteps: 5 };
  const more = { decoupled: true, biasCorrection: true, epsInsideRoot: false, minCoeff: 0.01, maxCoeff: 10 };
  const optimizers = [lamb, muon((name) => name !== 'row'), adamw8bit((_, { numel }) => numel > 100), adam] as Optimizer<object>[];

  it.each(optimizers.flatMap((optimizer) => (['f32', 'bf16'] as const).map((states) => ({ optimizer, name: optimizer.name, states }))))(
    'ends with the same bits: $name with states in $states',
    async ({ optimizer, states }) => {
      const dtypes = states === 'bf16' ? ({ dtype: 'bf16', masterDtype: 'bf16', stateDtype: 'bf16' } as const) : {};
      const end = (resumeAt?: number) =>
        train(optimizer, { ...options, ...more }, { ...dtypes, ...(resumeAt && { resumeAt }) }, async ({ weights }) => weights);
      expect(await end(3)).toEqual(await end());
    },
  );
});

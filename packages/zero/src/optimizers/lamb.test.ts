import { describe, it } from 'vitest';
import { lamb } from './index.js';
import { expectClose, gradientOf, NAMES, type Name, norm, train, weightOf } from './test-support.js';

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

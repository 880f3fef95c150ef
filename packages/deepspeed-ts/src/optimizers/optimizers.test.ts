import { plainSgd } from '@deepspeed-ts/zero';
import { describe, expect, it } from 'vitest';
import { loadConfig } from '../config/index.js';
import { tinyBatch, usable, weightsOf, withEngine } from '../engine/test-support.js';
import { type ConfiguredOptimizer, createOptimizer } from './index.js';

const configured = (optimizer: object) => createOptimizer(loadConfig({ train_batch_size: 1, optimizer }, 1).optimizer!);

describe('the optimizer of a config', () => {
  it('has the defaults of DeepSpeed and PyTorch', () => {
    expect(configured({ type: 'AdamW' }).options).toEqual({
      ...{ lr: 1e-3, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0, decoupled: true, biasCorrection: true },
    });
    expect(configured({ type: 'SGD' }).options).toEqual({ lr: 1e-3, weightDecay: 0 });
    expect(configured({ type: 'SGD', params: { momentum: 0.5 } }).options).toEqual({
      ...{ lr: 1e-3, momentum: 0.5, dampening: 0, nesterov: false, weightDecay: 0 },
    });
    expect(configured({ type: 'Adagrad' }).options).toEqual({
      lr: 1e-2,
      eps: 1e-10,
      lrDecay: 0,
      weightDecay: 0,
      initialAccumulatorValue: 0,
    });
    expect(configured({ type: 'Lion' }).options).toEqual({ lr: 1e-3, betas: [0.9, 0.999], weightDecay: 0 });
  });

  it('decouples weight decay as DeepSpeed does: always for AdamW, for Adam unless adam_w_mode is false', () => {
    const decoupled = (optimizer: object) => (configured(optimizer).options as unknown as { decoupled: boolean }).decoupled;
    expect(decoupled({ type: 'AdamW', params: { adam_w_mode: false } })).toBe(true);
    expect(decoupled({ type: 'Adam' })).toBe(true);
    expect(decoupled({ type: 'Adam', params: { adam_w_mode: false } })).toBe(false);
  });

  it('has a state for its momentum only when there is one', () => {
    expect(configured({ type: 'SGD' }).algorithm.stateNames).toEqual([]);
    expect(configured({ type: 'SGD', params: { momentum: 0.9 } }).algorithm.stateNames).toEqual(['momentum_buffer']);
  });
});

describe('training', () => {
  it.each([
    ['SGD', { lr: 0.5 }],
    ['SGD', { lr: 0.1, momentum: 0.9, nesterov: true, weight_decay: 0.01 }],
    ['Adagrad', { lr: 0.05 }],
    ['Lion', { lr: 0.005, weight_decay: 0.1 }],
  ])('lowers the loss with %s %j', async (type, params) => {
    await withEngine({ optimizer: { type, params } }, async (engine) => {
      const before = await engine.evalBatch(tinyBatch(0));
      for (let i = 0; i < 10; i++) await engine.trainBatch([tinyBatch(0)]);
      expect(await engine.evalBatch(tinyBatch(0))).toBeLessThan(before - 0.3);
    });
  });

  it('takes an optimizer of the caller, where the config has none', async () => {
    const steps: number[] = [];
    const own: ConfiguredOptimizer = {
      options: { lr: 0.5, weightDecay: 0 },
      algorithm: {
        ...plainSgd,
        step(range, settings, t) {
          steps.push(t);
          plainSgd.step(range, settings, t);
        },
      },
    };
    const run = (optimizer: object | undefined, options: object) =>
      withEngine(
        { optimizer },
        async (engine) => {
          for (let i = 0; i < 3; i++) await engine.trainBatch([tinyBatch(i)]);
          return weightsOf(engine);
        },
        options,
      );
    expect(await run(undefined, { optimizer: own })).toEqual(await run({ type: 'SGD', params: { lr: 0.5 } }, {}));
    expect(new Set(steps)).toEqual(new Set([1, 2, 3]));
    await expect(run({ type: 'SGD' }, { optimizer: own })).rejects.toThrow(/the config names one and initialize\(\) was given another/);
    await expect(run(undefined, {})).rejects.toThrow(/optimizer: missing/);
  });

  it('leaves the momentum alone where a schedule cycles betas that the optimizer has not', async () => {
    const scheduler = { type: 'OneCycle', params: { cycle_min_lr: 0.001, cycle_max_lr: 0.01, cycle_first_step_size: 2 } };
    await withEngine({ optimizer: { type: 'SGD', params: { momentum: 0.9 } }, scheduler }, async (engine) => {
      await engine.trainBatch([tinyBatch(0)]);
      expect(engine.optimizer.groups[0]!.options).toMatchObject({ lr: engine.scheduler!.lr[0], momentum: 0.9 });
      expect(engine.optimizer.groups[0]!.options).not.toHaveProperty('betas');
    });
  });

  it('refuses a group setting that the optimizer has not', async () => {
    const parameterGroups = () => ({ eps: 1e-6 });
    await expect(withEngine({ optimizer: { type: 'Lion' } }, weightsOf, { parameterGroups })).rejects.toThrow(
      /no setting "eps".*its settings are lr, betas, weightDecay/,
    );
    await withEngine(usable, async () => {}, { parameterGroups });
  });
});

import { defineOp, launch, namedParameters } from '@deepspeed-ts/core';
import { type FlatOptimizer, type OptimizerOptions, plainSgd } from '@deepspeed-ts/zero';
import { describe, expect, it } from 'vitest';
import { loadConfig } from '../config/index.js';
import { tinyBatch, tinyModel, usable, weightsOf, withEngine } from '../engine/test-support.js';
import { type ConfiguredOptimizer, createOptimizer, noDecayForNormsAndBiases } from './index.js';

const configured = (optimizer: object, model = tinyModel()) =>
  createOptimizer(loadConfig({ train_batch_size: 1, optimizer }, 1).optimizer!, model);

/** Of a block of GPT-2, in their order. */
const hidden = ['attn.c_attn.weight', 'attn.c_proj.weight', 'mlp.c_fc.weight', 'mlp.c_proj.weight'];

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
    expect(configured({ type: 'Lamb' }).options).toEqual({
      ...{ lr: 1e-3, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0, biasCorrection: true },
      ...{ minCoeff: 0.01, maxCoeff: 10, epsInsideRoot: false },
    });
    expect(configured({ type: 'Muon' }).options).toEqual({
      ...{ lr: 1e-3, weightDecay: 0, momentum: 0.95, nesterov: true, nsSteps: 5, betas: [0.9, 0.95], eps: 1e-10 },
    });
    expect(configured({ type: 'AdamW8bit' }).options).toEqual(configured({ type: 'AdamW' }).options);
  });

  it('gives hidden matrices the learning rate of Muon, and all others that of Adam', () => {
    const model = tinyModel();
    const { options, groups } = configured({ type: 'Muon', params: { lr: 0.1, muon_lr: 0.02 } }, model);
    expect(options.lr).toBe(0.1);
    const matrices = [...namedParameters(model)].filter(([name, parameter]) => groups!(name, parameter)?.lr === 0.02);
    expect(matrices.map(([name]) => name.replace(/^transformer\.h\.\d+\./, ''))).toEqual(hidden);
    expect(configured({ type: 'Muon', params: { lr: 0.1 } }).groups).toBeUndefined();
  });

  it('refuses bounds of the trust ratio that exclude each other', () => {
    expect(() => configured({ type: 'Lamb', params: { min_coeff: 2, max_coeff: 1 } })).toThrow(
      /min_coeff: expected at most max_coeff, 1, got 2/,
    );
  });

  it('decouples weight decay as DeepSpeed does: always for AdamW, for Adam unless adam_w_mode is false', () => {
    const decoupled = (optimizer: object) => (configured(optimizer).options as unknown as { decoupled: boolean }).decoupled;
    expect(decoupled({ type: 'AdamW', params: { adam_w_mode: false } })).toBe(true);
    expect(decoupled({ type: 'Adam' })).toBe(true);
    expect(decoupled({ type: 'Adam', params: { adam_w_mode: false } })).toBe(false);
  });

  it('has a state for its momentum only when there is one', () => {
    expect(configured({ type: 'SGD' }).algorithm).toMatchObject({ stateNames: [] });
    expect(configured({ type: 'SGD', params: { momentum: 0.9 } }).algorithm).toMatchObject({ stateNames: ['momentum_buffer'] });
  });
});

describe('training', () => {
  it.each([
    ['SGD', { lr: 0.5 }],
    ['SGD', { lr: 0.1, momentum: 0.9, nesterov: true, weight_decay: 0.01 }],
    ['Adagrad', { lr: 0.05 }],
    ['Lion', { lr: 0.005, weight_decay: 0.1 }],
    ['Lamb', { lr: 0.1, weight_decay: 0.01 }],
    ['Muon', { lr: 0.02, weight_decay: 0.01, muon_lr: 0.05 }],
    ['AdamW8bit', { lr: 0.01, min_8bit_size: 0, f32_embeddings: false }],
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
          (plainSgd as FlatOptimizer<OptimizerOptions>).step(range, settings, t);
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

  it('takes an optimizer that is written here, with an op of its own', async () => {
    const own = { algorithm: signSgd, options: { lr: 0.125, weightDecay: 0 } };
    await withEngine(
      { optimizer: undefined },
      async (engine) => {
        const before = await weightsOf(engine);
        await engine.trainBatch([tinyBatch(0)]);
        const after = await weightsOf(engine);
        // Every weight has a gradient here.
        const moves = new Set(after.map((value, i) => Math.abs(value - before[i]!)).map((move) => Math.round(move * 1e5) / 1e5));
        expect([...moves]).toEqual([0.125]);
      },
      { optimizer: own },
    );
  });

  it('does not decay norms and biases where parameterGroups says so', async () => {
    await withEngine(
      { optimizer: { type: 'SGD', params: { lr: 0.1, weight_decay: 0.5 } } },
      async (engine) => {
        const decays = engine.optimizer.groups.map(({ names, options }) => [
          options.weightDecay,
          names.every((name) => /bias$|ln_/.test(name)),
        ]);
        expect(decays).toEqual([
          [0.5, false],
          [0, true],
        ]);
      },
      { parameterGroups: noDecayForNormsAndBiases },
    );
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

const signStep = defineOp<{ lr: number }>({
  name: 'sign_sgd_of_a_test',
  attrs: ['lr'],
  infer: ([gradient]) => [{ shape: gradient!.shape, dtype: 'f32' }],
  reference([gradient, coefficient], { lr }, [master, low]) {
    if (Number.isNaN(coefficient!.data[0]!)) return;
    for (let i = 0; i < gradient!.data.length; i++) {
      master!.data[i]! -= lr * Math.sign(gradient!.data[i]!);
      if (low) low.data[i] = master!.data[i]!;
    }
  },
  samples: () => [],
});

/** Steps of one size against the sign of the gradient: a whole optimizer. */
const signSgd: FlatOptimizer<OptimizerOptions> = {
  name: 'sign-sgd',
  stateNames: [],
  step({ gradient, coefficient, master, low }, { lr }) {
    launch(signStep, [gradient, coefficient], low ? [master, low] : [master], { lr });
  },
};

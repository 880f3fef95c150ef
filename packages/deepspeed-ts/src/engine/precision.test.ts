import { scale, scope, uniforms } from '@deepspeed-ts/core';
import { describe, expect, it } from 'vitest';
import type { DeepSpeedEngine } from './engine.js';
import { LossScaleError, NonFiniteError } from './errors.js';
import { tinyBatch, weightsOf, withEngine } from './test-support.js';

const fp16 = (options: object = {}) => ({ fp16: { enabled: true, hysteresis: 1, initial_scale_power: 8, ...options } });
const scheduler = { type: 'WarmupLR', params: { warmup_max_lr: 0.01, warmup_num_steps: 4, warmup_type: 'linear' } };

/** One step of one micro-batch, its gradients infinite if `overflow`. */
async function step(engine: DeepSpeedEngine, seed: number, overflow = false): Promise<void> {
  const loss = engine.forward(tinyBatch(seed));
  scope(() => engine.backward(overflow ? scale(loss, Number.POSITIVE_INFINITY) : loss));
  await engine.step();
}

describe('float16 training', () => {
  it('follows f32 training within the precision of float16', async () => {
    const run = (config: object) =>
      withEngine(config, async (engine) => {
        const losses = [];
        for (let i = 0; i < 10; i++) losses.push(await engine.trainBatch([tinyBatch(i)]));
        return losses;
      });
    const [half, single] = [await run(fp16()), await run({})];
    for (const [i, loss] of half.entries()) expect(Math.abs(loss - single[i]!) / single[i]!).toBeLessThan(2e-3);
  });

  it('does not depend on a scale that is a power of two, as long as nothing over- or underflows', async () => {
    const run = (options: object) =>
      withEngine({ ...fp16(options), data_types: { grad_accum_dtype: 'fp32' }, gradient_clipping: 0 }, async (engine) => {
        const norms = [];
        for (let i = 0; i < 5; i++) {
          await engine.trainBatch([tinyBatch(i)]);
          norms.push(engine.globalGradNorm);
        }
        return { norms, weights: await weightsOf(engine) };
      });
    const fixed = await run({ loss_scale: 2 ** 12 });
    expect(await run({ initial_scale_power: 12 })).toEqual(fixed);
    // Rises at the third step and again at the fifth: gradients are divided by the scale that backward used, not by the new one. Equal up
    // to numbers that are too small for all of float16's digits.
    const rising = await run({ initial_scale_power: 12, loss_scale_window: 2 });
    for (const [i, norm] of rising.norms.entries()) expect(norm / fixed.norms[i]!).toBeCloseTo(1, 5);
    for (const [i, weight] of rising.weights.entries()) expect(weight).toBeCloseTo(fixed.weights[i]!, 5);
  });

  it('skips a step that overflows: weights, moments, their bias correction and the schedule stay', async () => {
    const run = (pattern: readonly boolean[]) =>
      withEngine({ ...fp16(), scheduler }, async (engine) => {
        const seen = [];
        let seed = 0;
        for (const overflow of pattern) {
          const before = await weightsOf(engine);
          const { lr } = engine;
          await step(engine, overflow ? 99 : seed++, overflow);
          seen.push([engine.wasStepApplied(), engine.globalSteps, engine.skippedSteps, engine.lossScale]);
          if (overflow) expect([await weightsOf(engine), engine.lr]).toEqual([before, lr]);
        }
        const { skippedSteps, lossScale } = engine.report();
        return {
          seen,
          weights: await weightsOf(engine),
          iteration: engine.scheduler!.lastBatchIteration,
          report: [skippedSteps, lossScale],
        };
      });
    const skipping = await run([true, false, false, true, true, false]);
    expect(skipping.seen).toEqual([
      [false, 1, 1, 128],
      [true, 2, 1, 128],
      [true, 3, 1, 128],
      [false, 4, 2, 64],
      [false, 5, 3, 32],
      [true, 6, 3, 32],
    ]);
    expect(skipping.report).toEqual([3, 32]);
    const straight = await run([false, false, false]);
    expect(skipping.iteration).toBe(2);
    // The scales differ, and with them what underflows in float16: equal up to that.
    for (const [i, weight] of skipping.weights.entries()) expect(weight).toBeCloseTo(straight.weights[i]!, 3);
  });

  it('does not count the steps in the middle of an accumulation as applied', async () => {
    await withEngine({ ...fp16(), gradient_accumulation_steps: 2 }, async (engine) => {
      const applied = [];
      for (let i = 0; i < 4; i++) {
        await step(engine, i);
        applied.push(engine.wasStepApplied());
      }
      expect(applied).toEqual([false, true, false, true]);
    });
  });

  it('says so when gradients overflow at the smallest scale, and leaves the weights alone', async () => {
    await withEngine(fp16({ initial_scale_power: 1 }), async (engine) => {
      const before = await weightsOf(engine);
      await step(engine, 0, true);
      const error: unknown = await step(engine, 0, true).catch((reason: unknown) => reason);
      expect(error).toBeInstanceOf(LossScaleError);
      expect(error).toMatchObject({ code: 'ERR_LOSS_SCALE', rank: 0, step: 2, scale: 1 });
      expect(await weightsOf(engine)).toEqual(before);
      await step(engine, 0);
      expect(engine.wasStepApplied()).toBe(true);
    });
  });

  it('skips with a fixed scale too, and keeps it', async () => {
    await withEngine(fp16({ loss_scale: 3 }), async (engine) => {
      for (const overflow of [true, true, false]) await step(engine, 0, overflow);
      expect([engine.skippedSteps, engine.lossScale, engine.wasStepApplied()]).toEqual([2, 3, true]);
    });
  });

  it('gives the loss of a skipped step as it is, and goes on', async () => {
    // Weights that overflow float16 in the forward pass, and so make the loss NaN.
    const initial = (name: string, { numel }: { numel: number }) =>
      name.endsWith('mlp.c_fc.weight') ? Float64Array.from(uniforms({ seed: 1 }, 0, numel), (u) => (u - 0.5) * 1e6) : undefined;
    await withEngine(
      fp16(),
      async (engine) => {
        expect(await engine.trainBatch([tinyBatch(0)])).toBeNaN();
        expect([engine.wasStepApplied(), engine.lossScale]).toEqual([false, 128]);
      },
      { initial },
    );
  });
});

describe('a gradient that is not finite in bf16', () => {
  it('is an error unless check_grad_overflow says to skip', async () => {
    const bf16 = (check?: boolean) => ({ bf16: { enabled: true, ...(check !== undefined && { check_grad_overflow: check }) } });
    for (const config of [bf16(), bf16(false), {}]) {
      await withEngine(config, async (engine) => {
        await expect(step(engine, 0, true)).rejects.toThrow(NonFiniteError);
        expect([engine.wasStepApplied(), engine.skippedSteps]).toEqual([false, 1]);
      });
    }
    await withEngine(bf16(true), async (engine) => {
      const before = await weightsOf(engine);
      await step(engine, 0, true);
      expect(await weightsOf(engine)).toEqual(before);
      await step(engine, 0);
      expect([engine.wasStepApplied(), engine.skippedSteps, engine.globalSteps, engine.lossScale]).toEqual([true, 1, 2, 1]);
    });
  });
});

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { noGrad } from '@deepspeed-ts/core';
import { describe, expect, it } from 'vitest';
import type { DeepSpeedEngine } from './engine.js';
import { tinyBatch, weightsOf, withEngine } from './test-support.js';

const accumulate = (n: number) => ({ gradient_accumulation_steps: n });

function pass(engine: DeepSpeedEngine, seed: number): void {
  engine.backward(engine.forward(tinyBatch(seed)));
}

async function micro(engine: DeepSpeedEngine, seed: number): Promise<void> {
  pass(engine, seed);
  await engine.step();
}

const close = (a: readonly number[], b: readonly number[], digits = 5) => {
  for (const [i, value] of a.entries()) expect(value).toBeCloseTo(b[i]!, digits);
};

describe('noSync', () => {
  const stages = [0, 1, 2, 3].map((stage) => ({ zero_optimization: { stage } }));
  const train = (config: object, unsynced: boolean) =>
    withEngine({ ...accumulate(3), ...config }, async (engine) => {
      for (let i = 0; i < 6; i++) {
        const once = () => micro(engine, i);
        await (unsynced && !engine.isGradientAccumulationBoundary() ? engine.noSync(once) : once());
      }
      expect([engine.globalSteps, engine.microSteps]).toEqual([2, 6]);
      return [engine.globalGradNorm, ...(await weightsOf(engine))];
    });

  it('gives the steps of reducing each micro-batch up to rounding, and the same bits at every stage', async () => {
    const runs = [];
    for (const stage of stages) runs.push(await train(stage, true));
    for (const run of runs) expect(run).toEqual(runs[0]);
    close(runs[0]!, await train({}, false));
  });

  it('takes several passes without step() as one micro-batch, whose gradients the next pass outside reduces', async () => {
    const together = await withEngine({}, async (engine) => {
      engine.noSync(() => {
        pass(engine, 0);
        pass(engine, 1);
      });
      pass(engine, 2);
      await engine.step();
      expect([engine.globalSteps, engine.microSteps]).toEqual([1, 1]);
      return engine.globalGradNorm;
    });
    const apart = await withEngine({}, async (engine) => {
      for (const seed of [0, 1, 2]) pass(engine, seed);
      await engine.step();
      return engine.globalGradNorm;
    });
    expect(together).toBeCloseTo(apart, 5);
  });

  it('refuses to end a step inside, and the step reduces what is left', async () => {
    await withEngine({}, async (engine) => {
      const before = await weightsOf(engine);
      await engine.noSync(async () => {
        pass(engine, 0);
        await expect(engine.step()).rejects.toThrow('[step] rank 0: this micro-batch ends a step, and inside noSync()');
        await expect(engine.trainBatch([tinyBatch(0)])).rejects.toThrow('inside noSync() none can be taken');
      });
      expect(await weightsOf(engine)).toEqual(before);
      await engine.step();
      const after = await weightsOf(engine);
      await withEngine({}, async (other) => {
        await micro(other, 0);
        expect(await weightsOf(other)).toEqual(after);
      });
    });
  });

  it('ends with its body, also one that throws or fails later', async () => {
    const norms = await withEngine(accumulate(2), async (engine) => {
      const fail = (): void => {
        throw new Error('mine');
      };
      expect(() => engine.noSync(fail)).toThrow('mine');
      await expect(engine.noSync(async () => fail())).rejects.toThrow('mine');
      await micro(engine, 0);
      expect(engine.coalesceGradReduction(() => 7)).toBe(7);
      await micro(engine, 1);
      return engine.globalGradNorm;
    });
    expect(norms).toBe(
      await withEngine(accumulate(2), async (engine) => {
        await engine.trainBatch([tinyBatch(0), tinyBatch(1)]);
        return engine.globalGradNorm;
      }),
    );
  });

  it('is forgotten with the gradients of a step that begins anew', async () => {
    await withEngine({}, async (engine) => {
      engine.noSync(() => pass(engine, 0));
      engine.zeroGrad();
      await engine.trainBatch([tinyBatch(1)]);
      const after = await weightsOf(engine);
      await withEngine({}, async (other) => {
        await other.trainBatch([tinyBatch(1)]);
        expect(await weightsOf(other)).toEqual(after);
      });
    });
  });

  it('keeps gradients that no checkpoint can hold', async () => {
    await withDirectory((directory) =>
      withEngine(accumulate(2), async (engine) => {
        await engine.noSync(() => micro(engine, 0));
        await expect(engine.saveCheckpoint(directory)).rejects.toThrow('gradients that noSync() has kept');
        pass(engine, 1);
        await expect(engine.saveCheckpoint(directory)).rejects.toThrow('between backward() and step()');
        await engine.step();
        await (await engine.saveCheckpoint(directory)).finished;
      }),
    );
  });
});

describe('a boundary', () => {
  it('set by hand ends a step where it says, whatever gradient_accumulation_steps is', async () => {
    const steps = await withEngine(accumulate(2), async (engine) => {
      const seen = [];
      for (const boundary of [false, false, true, true]) {
        engine.setGradientAccumulationBoundary(boundary);
        expect(engine.isGradientAccumulationBoundary()).toBe(boundary);
        await micro(engine, seen.length);
        seen.push([engine.globalSteps, engine.wasStepApplied(), engine.globalSamples]);
      }
      await expect(engine.trainBatch([])).rejects.toThrow('[trainBatch] takes a whole step, but setGradientAccumulationBoundary()');
      engine.setGradientAccumulationBoundary(undefined);
      await engine.trainBatch([tinyBatch(7), tinyBatch(8)]);
      return [...seen, engine.globalSamples];
    });
    expect(steps).toEqual([[0, false, 0], [0, false, 0], [1, true, 6], [2, true, 8], 12]);
  });

  it('is every call of step() where accumulation is not managed', async () => {
    const byHand = await withEngine({ ...accumulate(2), managed_gradient_accumulation: false }, async (engine) => {
      pass(engine, 0);
      pass(engine, 1);
      await engine.step();
      expect([engine.globalSteps, engine.microSteps]).toEqual([1, 1]);
      await engine.trainBatch([tinyBatch(2), tinyBatch(3)]);
      return weightsOf(engine);
    });
    const managed = await withEngine(accumulate(2), async (engine) => {
      for (let i = 0; i < 4; i++) await micro(engine, i);
      return weightsOf(engine);
    });
    expect(byHand).toEqual(managed);
  });

  it('does not change what a loss counts for, unless scaleWrtGas says so', async () => {
    const norm = (n: number, scaleWrtGas: boolean) =>
      withEngine(accumulate(n), async (engine) => {
        engine.setGradientAccumulationBoundary(true);
        engine.backward(engine.forward(tinyBatch(0)), { scaleWrtGas });
        await engine.step();
        return engine.globalGradNorm;
      });
    const whole = await norm(1, true);
    expect(await norm(4, true)).toBeCloseTo(whole / 4, 6);
    expect(await norm(4, false)).toBe(whole);
  });
});

describe('batch sizes', () => {
  it('of a step change by the number of micro-batches, the next step on', async () => {
    await withEngine(accumulate(2), async (engine) => {
      expect(engine.getBatchInfo()).toEqual({ trainBatchSize: 4, trainMicroBatchSizePerGpu: 2, gradientAccumulationSteps: 2 });
      await micro(engine, 0);
      expect(() => engine.setTrainBatchSize(6)).toThrow('[setTrainBatchSize] rank 0 is in the middle of a step');
      await micro(engine, 1);
      engine.setTrainBatchSize(6);
      expect(engine.getBatchInfo()).toEqual({ trainBatchSize: 6, trainMicroBatchSizePerGpu: 2, gradientAccumulationSteps: 3 });
      expect(engine.config.gradient_accumulation_steps).toBe(3);
      // After two micro-batches in all, three more are a step: a boundary counts from the step before, not from the beginning.
      const boundaries = [];
      for (let i = 2; i < 5; i++) {
        boundaries.push(engine.isGradientAccumulationBoundary());
        await micro(engine, i);
      }
      expect(boundaries).toEqual([false, false, true]);
      expect([engine.globalSteps, engine.globalSamples]).toEqual([2, 10]);
    });
  });

  it('that do not fit are refused, with those that do', async () => {
    await withEngine(accumulate(2), async (engine) => {
      const expected = 'expected a multiple of train_micro_batch_size_per_gpu * ranks = 2 * 1 = 2';
      expect(() => engine.setTrainBatchSize(7)).toThrow(`${expected}, got 7; the nearest are 6 and 8`);
      expect(() => engine.setTrainBatchSize(0)).toThrow(`${expected}, got 0; the smallest is 2`);
      expect(() => engine.setTrainMicroBatchSize(1.5)).toThrow('expected an integer >= 1, got 1.5');
    });
  });

  it('of a micro-batch are followed by the loader', async () => {
    const samples = Array.from({ length: 12 }, (_, i) => {
      const field = { data: new Int32Array(6).fill(i), shape: [6] };
      return { inputIds: field, labels: field };
    });
    const drawn: number[] = [];
    const trainingData = {
      length: samples.length,
      get(i: number) {
        drawn.push(i);
        return samples[i]!;
      },
    };
    await withEngine(
      {},
      async (engine) => {
        for (const size of [2, 3, 1]) {
          engine.setTrainMicroBatchSize(size);
          const before = drawn.length;
          await engine.trainBatch();
          expect(drawn.length - before).toBe(size);
          expect(engine.getBatchInfo().trainBatchSize).toBe(size);
        }
        expect(new Set(drawn).size).toBe(6);
        expect(engine.globalSamples).toBe(6);
        expect(() => engine.setTrainMicroBatchSize(13)).toThrow('the dataset has 12 samples, fewer than one micro-batch on every rank');
        expect(engine.getBatchInfo().trainBatchSize).toBe(1);
        const loader = engine.deepspeedIo(trainingData, { shuffle: false });
        expect([loader.batchSize, loader.length]).toEqual([1, 12]);
      },
      { trainingData },
    );
  });

  it('that changed do not change what a resumed run draws and counts', async () => {
    const config = accumulate(2);
    await withDirectory(async (directory) => {
      const straight = await withEngine(
        config,
        async (engine) => {
          await engine.trainBatch([tinyBatch(0), tinyBatch(1)]);
          engine.setTrainBatchSize(6);
          await engine.trainBatch([tinyBatch(2), tinyBatch(3), tinyBatch(4)]);
          engine.setTrainBatchSize(4);
          await (await engine.saveCheckpoint(directory)).finished;
          await engine.trainBatch([tinyBatch(5), tinyBatch(6)]);
          return [engine.microSteps, engine.globalSamples, ...(await weightsOf(engine))];
        },
        { dropout: 0.2 },
      );
      const resumed = await withEngine(
        config,
        async (engine) => {
          await engine.loadCheckpoint(directory);
          await engine.trainBatch([tinyBatch(5), tinyBatch(6)]);
          return [engine.microSteps, engine.globalSamples, ...(await weightsOf(engine))];
        },
        { dropout: 0.2 },
      );
      expect(resumed).toEqual(straight);
      expect(straight.slice(0, 2)).toEqual([7, 14]);
    });
  });
});

describe('modes', () => {
  it('switch dropout, and nothing else', async () => {
    await withEngine(
      {},
      async (engine) => {
        const loss = () => noGrad(() => engine.forward(tinyBatch(0))).item();
        const [dropped, evaluated] = [await loss(), await engine.evalBatch(tinyBatch(0))];
        expect(dropped).not.toBe(evaluated);
        expect(engine.isTraining).toBe(true);
        expect(engine.eval()).toBe(engine);
        expect(engine.isTraining).toBe(false);
        expect(await loss()).toBe(evaluated);
        expect(engine.train().isTraining).toBe(true);
        expect(await loss()).toBe(dropped);
        engine.train(false);
        await micro(engine, 0);
        expect(engine.globalSteps).toBe(1);
      },
      { dropout: 0.3 },
    );
  });

  it('drop other elements in each pass of a micro-batch', async () => {
    await withEngine(
      {},
      async (engine) => {
        const loss = engine.forward(tinyBatch(0));
        const first = await loss.item();
        engine.backward(loss);
        expect(await engine.forward(tinyBatch(0)).item()).not.toBe(first);
        engine.zeroGrad();
        expect(await engine.forward(tinyBatch(0)).item()).toBe(first);
      },
      { dropout: 0.3 },
    );
  });
});

describe('settings', () => {
  it('of the optimizer are told and set by group', async () => {
    const parameterGroups = (name: string) => (name.includes('ln_') ? { weightDecay: 0 } : undefined);
    await withEngine(
      { bf16: { enabled: true }, data_types: { grad_accum_dtype: 'fp32' } },
      async (engine) => {
        expect([engine.getType(), engine.getLr(), engine.getMom()]).toEqual([
          'AdamW',
          [0.01, 0.01],
          [
            [0.9, 0.999],
            [0.9, 0.999],
          ],
        ]);
        expect([engine.gradientClipping, engine.getDataTypes()]).toEqual([1, { weights: 'bf16', gradients: 'f32' }]);
        engine.setLr(0);
        const before = await weightsOf(engine);
        await micro(engine, 0);
        expect(await weightsOf(engine)).toEqual(before);
        engine.setLr([0, 0.5]);
        expect(engine.lr).toEqual([0, 0.5]);
        await micro(engine, 1);
        expect(await weightsOf(engine)).not.toEqual(before);
        expect(() => engine.setLr([1])).toThrow('expected a number >= 0, or one for each of 2 parameter groups, got [1]');
        expect(() => engine.setLr(Number.NaN)).toThrow('[setLr]');
      },
      { parameterGroups },
    );
  });

  it('of a schedule come back after the step that a rate of your own was for', async () => {
    const scheduler = { type: 'WarmupLR', params: { warmup_min_lr: 0.001, warmup_max_lr: 0.001, warmup_num_steps: 2 } };
    await withEngine({ scheduler }, async (engine) => {
      engine.setLr(0.5);
      expect(engine.lr).toEqual([0.5]);
      await micro(engine, 0);
      expect(engine.lr).toEqual([0.001]);
    });
    await withEngine({ optimizer: { type: 'SGD', params: { lr: 0.1, momentum: 0.8 } } }, async (engine) => {
      expect([engine.getType(), engine.getMom()]).toEqual(['SGD', [0.8]]);
    });
  });
});

async function withDirectory<T>(body: (directory: string) => Promise<T>): Promise<T> {
  const directory = await mkdtemp(join(tmpdir(), 'engine-api-'));
  try {
    return await body(directory);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

import { type Batch, ConfigError, DisposedError } from '@deepspeed-ts/core';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { initialize } from '../initialize.js';
import { NonFiniteError } from './errors.js';
import { tinyBatch, tinyModel, usable, weightsOf, withEngine } from './test-support.js';

/** A batch with a token that may not exist. */
function withToken(token: number): Batch {
  const data = new Int32Array(12).fill(token);
  return { inputIds: { data, shape: [2, 6] }, labels: { data, shape: [2, 6] } };
}

const accumulate = (n: number) => ({ gradient_accumulation_steps: n });
const batches = (step: number, n: number) => Array.from({ length: n }, (_, micro) => tinyBatch(10 * step + micro));

describe('a step', () => {
  it('is taken on every third micro-batch when three are accumulated, and counted then', async () => {
    await withEngine(accumulate(3), async (engine) => {
      const before = await weightsOf(engine);
      const seen = [];
      for (let micro = 0; micro < 6; micro++) {
        const boundary = engine.isGradientAccumulationBoundary();
        engine.backward(engine.forward(tinyBatch(micro)));
        await engine.step();
        seen.push([boundary, engine.microSteps, engine.globalSteps, engine.globalSamples]);
        if (micro === 1) expect(await weightsOf(engine)).toEqual(before);
        if (micro === 2) expect(await weightsOf(engine)).not.toEqual(before);
      }
      expect(seen).toEqual([
        [false, 1, 0, 0],
        [false, 2, 0, 0],
        [true, 3, 1, 6],
        [false, 4, 1, 6],
        [false, 5, 1, 6],
        [true, 6, 2, 12],
      ]);
    });
  });

  it('by forward, backward and step is to the bit what trainBatch does', async () => {
    const config = { ...accumulate(2), gradient_clipping: 0.5, zero_optimization: { stage: 3 } };
    const dropout = 0.1;
    const whole = await withEngine(
      config,
      async (engine) => {
        for (let step = 0; step < 3; step++) await engine.trainBatch(batches(step, 2));
        return { weights: await weightsOf(engine), norm: engine.globalGradNorm };
      },
      { dropout },
    );
    const byHand = await withEngine(
      config,
      async (engine) => {
        for (let step = 0; step < 3; step++) {
          for (const batch of batches(step, 2)) {
            engine.backward(engine.forward(batch));
            await engine.step();
          }
        }
        return { weights: await weightsOf(engine), norm: engine.globalGradNorm };
      },
      { dropout },
    );
    expect(byHand).toEqual(whole);
  });

  it('resolves to the mean loss of its micro-batches', async () => {
    await withEngine(accumulate(2), async (engine) => {
      const [one, two] = [await engine.evalBatch(tinyBatch(0)), await engine.evalBatch(tinyBatch(1))];
      expect(await engine.trainBatch(batches(0, 2))).toBeCloseTo((one + two) / 2, 6);
    });
  });

  it('says how many micro-batches it wanted when there are too few', async () => {
    await withEngine(accumulate(3), async (engine) => {
      await expect(engine.trainBatch(batches(0, 2))).rejects.toThrow(
        '[trainBatch] a step takes 3 micro-batches, the iterator ended after 2',
      );
    });
    await withEngine({}, async (engine) => {
      await expect(engine.trainBatch()).rejects.toThrow('there is nothing to draw from');
    });
  });

  it('that is not finite changes no weight and says so', async () => {
    const huge = { optimizer: { type: 'AdamW', params: { lr: 1e30 } } };
    await withEngine(huge, async (engine) => {
      await engine.trainBatch([tinyBatch(0)]);
      const before = await weightsOf(engine);
      const error: unknown = await engine.trainBatch([tinyBatch(1)]).catch((reason: unknown) => reason);
      expect(error).toBeInstanceOf(NonFiniteError);
      expect(error).toMatchObject({ code: 'ERR_NON_FINITE', rank: 0, step: 2, what: 'loss', value: Number.NaN, applied: false });
      expect(await weightsOf(engine)).toEqual(before);
      engine.backward(engine.forward(tinyBatch(1)));
      await expect(engine.step()).rejects.toThrow('the gradient norm of step 3 is NaN; the step was not applied');
    });
  });

  it.each([
    ['a batch that does not fit', { inputIds: { data: new Int32Array(4), shape: [4] }, labels: { data: new Int32Array(4), shape: [4] } }],
    ['a token that is not in the vocabulary', withToken(99)],
    ['an iterator that ends early', undefined],
  ])('that fails is as if it had not been tried: %s', async (_, bad) => {
    const config = { ...accumulate(2), gradient_clipping: 0.1 };
    const train = (tryBad: boolean) =>
      withEngine(config, async (engine) => {
        for (let step = 0; step < 3; step++) {
          if (tryBad) await expect(engine.trainBatch(bad ? [tinyBatch(50), bad] : [tinyBatch(50)])).rejects.toThrow();
          await engine.trainBatch(batches(step, 2));
        }
        return [engine.globalSteps, engine.microSteps, ...(await weightsOf(engine))];
      });
    const [globalSteps, microSteps, ...weights] = await train(true);
    expect(weights).toEqual((await train(false)).slice(2));
    expect(globalSteps).toBe(3);
    expect(microSteps! % 2).toBe(0);
  });

  it('updates groups of parameters by their own settings', async () => {
    const parameterGroups = (name: string) => (name.includes('ln_') ? { lr: 0, weightDecay: 0 } : undefined);
    await withEngine(
      {},
      async (engine) => {
        expect(engine.lr).toEqual([0.01, 0]);
        const norms = async () => {
          const values = [];
          for await (const [name, { data }] of engine.weights()) if (name.includes('ln_')) values.push(...data);
          return values;
        };
        const before = { norms: await norms(), all: await weightsOf(engine) };
        await engine.trainBatch([tinyBatch(0)]);
        expect(await norms()).toEqual(before.norms);
        expect(await weightsOf(engine)).not.toEqual(before.all);
      },
      { parameterGroups },
    );
  });
});

describe('evaluation', () => {
  it('drops nothing, draws nothing and trains nothing', async () => {
    const run = (evaluate: boolean) =>
      withEngine(
        accumulate(2),
        async (engine) => {
          for (let step = 0; step < 2; step++) {
            for (const batch of batches(step, 2)) {
              engine.backward(engine.forward(batch));
              if (evaluate) expect(await engine.evalBatch(tinyBatch(99))).toBe(await engine.evalBatch(tinyBatch(99)));
              await engine.step();
            }
          }
          return [engine.microSteps, ...(await weightsOf(engine))];
        },
        { dropout: 0.3 },
      );
    expect(await run(true)).toEqual(await run(false));
    const loss = (dropout: number) => withEngine({}, (engine) => engine.evalBatch(tinyBatch(1)), { dropout });
    expect(await loss(0.3)).toBe(await loss(0));
  });
});

describe('the schedule', () => {
  const warmup = { type: 'WarmupLR', params: { warmup_min_lr: 0, warmup_max_lr: 0.01, warmup_num_steps: 4, warmup_type: 'linear' } };

  it('moves after each applied step: the first two steps of a warm-up from 0 run with 0, as in DeepSpeed', async () => {
    await withEngine({ scheduler: warmup }, async (engine) => {
      const start = await weightsOf(engine);
      const rates = [];
      for (let step = 0; step < 7; step++) {
        rates.push(engine.lr[0]);
        await engine.trainBatch([tinyBatch(step)]);
        if (step === 1) expect(await weightsOf(engine)).toEqual(start);
        if (step === 2) expect(await weightsOf(engine)).not.toEqual(start);
      }
      expect(rates).toEqual([0, 0, 0.0025, 0.005, 0.0075, 0.01, 0.01]);
    });
  });

  it('stays where it is when a step is not applied', async () => {
    const initial = (_name: string, { numel }: { numel: number }) => new Float64Array(numel).fill(Number.NaN);
    await withEngine(
      { scheduler: warmup },
      async (engine) => {
        await expect(engine.trainBatch([tinyBatch(0)])).rejects.toThrow(NonFiniteError);
        expect(engine.scheduler!.lastBatchIteration).toBe(-1);
      },
      { initial },
    );
  });

  it('sets the momentum too where its policy does', async () => {
    const params = { cycle_min_lr: 0.001, cycle_max_lr: 0.01, cycle_first_step_size: 4, cycle_min_mom: 0.8, cycle_max_mom: 0.9 };
    await withEngine({ scheduler: { type: 'OneCycle', params } }, async (engine) => {
      const seen = [];
      for (let step = 0; step < 4; step++) {
        const { betas, lr } = engine.optimizer.groups[0]!.options;
        expect([lr, betas]).toEqual([engine.scheduler!.lr[0], engine.scheduler!.betas]);
        seen.push(betas![0]);
        await engine.trainBatch([tinyBatch(step)]);
      }
      expect(new Set(seen).size).toBeGreaterThan(2);
    });
  });
});

describe('reports', () => {
  afterEach(() => void vi.restoreAllMocks());

  const printed = async (config: object, steps: number): Promise<string[]> => {
    const log = vi.spyOn(console, 'log').mockImplementation(() => {});
    await withEngine(config, async (engine) => {
      for (let step = 0; step < steps; step++) await engine.trainBatch([tinyBatch(step)]);
    });
    return log.mock.calls.map(([line]) => String(line));
  };

  it('come every steps_per_print steps', async () => {
    const lines = await printed({ steps_per_print: 2 }, 5);
    expect(lines).toEqual([
      expect.stringMatching(/^step 2 {2}loss 2\.\d{4} {2}grad norm .* samples\/s {2}peak \d+ MiB\/rank$/),
      expect.stringMatching(/^step 4 /),
    ]);
  });

  it('do not come unless asked for', async () => {
    expect(await printed({}, 2)).toEqual([]);
  });

  it('tell where the time goes with wall_clock_breakdown', async () => {
    const [line] = await printed({ steps_per_print: 1, wall_clock_breakdown: true }, 1);
    expect(line).toMatch(/ {2}forward \d+\.\d ms {2}backward \d+\.\d ms {2}step \d+\.\d ms$/);
    await withEngine({ wall_clock_breakdown: true, ...accumulate(2) }, async (engine) => {
      expect(engine.report().wallClock).toBeUndefined();
      await engine.trainBatch(batches(0, 2));
      const { wallClock } = engine.report();
      expect(Object.keys(wallClock!)).toEqual(['forward', 'backward', 'step']);
      for (const milliseconds of Object.values(wallClock!)) expect(milliseconds).toBeGreaterThan(0);
      expect(engine.report().wallClock).toBeUndefined();
    });
  });

  it('show the loss of the whole step, its norm, and memory by kind', async () => {
    await withEngine(accumulate(2), async (engine) => {
      const loss = await engine.trainBatch(batches(0, 2));
      const { memory, ...report } = engine.report();
      expect(report).toMatchObject({ step: 1, loss, gradNorm: engine.globalGradNorm, lr: 0.01 });
      expect(memory.optimizer.live).toBe(2 * memory.parameters.live);
      expect(memory.gradients).toEqual({ live: 0, peak: expect.any(Number) });
    });
  });
});

describe('an engine', () => {
  it('gives its model back when it is disposed, as often as that is called', async () => {
    const model = tinyModel();
    await withEngine({}, async (engine) => void (await engine.trainBatch([tinyBatch(0)])), { model });
    const { engine: first } = await initialize({ model, config: usable });
    await first.dispose();
    await withEngine(
      {},
      async (second) => {
        await first.dispose();
        expect(await second.trainBatch([tinyBatch(0)])).toBeGreaterThan(0);
        expect(() => first.forward(tinyBatch(0))).toThrow(/one device/);
      },
      { model },
    );
    expect(first.device.liveBuffers).toBe(0);
  });

  it('leaves a model alone that another engine holds', async () => {
    const model = tinyModel();
    await withEngine(
      {},
      async (engine) => {
        const before = await engine.evalBatch(tinyBatch(0));
        await expect(initialize({ model, config: usable })).rejects.toMatchObject({ code: 'ERR_STORE_TAKEN' });
        expect(await engine.evalBatch(tinyBatch(0))).toBe(before);
      },
      { model },
    );
  });

  it('works beside another one in the same process', async () => {
    const alone = await withEngine({}, async (engine) => [
      await engine.trainBatch([tinyBatch(0)]),
      await engine.trainBatch([tinyBatch(1)]),
    ]);
    await withEngine({}, async (one) => {
      await withEngine({ zero_optimization: { stage: 3 } }, async (two) => {
        const losses = [];
        for (const step of [0, 1]) losses.push([await one.trainBatch([tinyBatch(step)]), await two.trainBatch([tinyBatch(step)])]);
        expect(losses).toEqual(alone.map((loss) => [loss, loss]));
      });
    });
  });

  it('owns its loss until the next forward', async () => {
    await withEngine({}, async (engine) => {
      const first = engine.forward(tinyBatch(0));
      const second = engine.forward(tinyBatch(1));
      await expect(first.item()).rejects.toThrow(DisposedError);
      expect(await second.item()).toBeGreaterThan(0);
      expect(() => engine.backward(first)).toThrow(DisposedError);
    });
  });

  it('needs an optimizer, and a config without unknown keys', async () => {
    const model = tinyModel();
    await expect(initialize({ model, config: { train_batch_size: 1 } })).rejects.toThrow(ConfigError);
    await expect(initialize({ model, config: { ...usable, fp61: {} } })).rejects.toThrow(ConfigError);
    await withEngine({}, async (engine) => void (await engine.evalBatch(tinyBatch(0))), { model });
  });

  it('begins with the weights it is given, and refuses those of another size', async () => {
    const initial = (name: string) => (name.endsWith('wpe.weight') ? Float64Array.from({ length: 48 }, (_, i) => i / 64) : undefined);
    await withEngine(
      { bf16: { enabled: true }, zero_optimization: { stage: 3 } },
      async (engine) => {
        for await (const [name, { data }] of engine.weights())
          if (name.endsWith('wpe.weight')) expect([...data]).toEqual([...initial(name)!]);
      },
      { initial },
    );
    const model = tinyModel();
    await expect(initialize({ model, config: usable, initial: () => [1, 2] })).rejects.toThrow(
      /wte\.weight has shape \[17, 8\], but 2 initial values/,
    );
    await withEngine({}, async () => {}, { model });
  });
});

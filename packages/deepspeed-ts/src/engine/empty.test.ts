import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  add,
  type CausalBatch,
  Embedding,
  init,
  LayerNorm,
  Linear,
  linearCrossEntropy,
  Module,
  Parameter,
  type Tensor,
} from '@deepspeed-ts/core';
import { describe, expect, it } from 'vitest';
import { tinyBatch, weightsOf, withEngine } from './test-support.js';

class EmptyUnit extends Module<[], void> {
  override readonly isUnit = true;
  readonly nothing = new Parameter([0, 13], init.normal(1));
  forward(): void {}
}

/** With parameters of no elements among others of a unit, and a unit of nothing else. */
class Model extends Module<[CausalBatch], Tensor> {
  readonly embed = new Embedding(17, 8, init.normal(0.3));
  readonly first = new Parameter([0], init.normal(1));
  readonly layer = new Linear(8, 8);
  readonly unit = new EmptyUnit();
  readonly norm = new LayerNorm(8);
  readonly last = new Parameter([3, 0], init.constant(1));
  readonly narrow = new Linear(8, 0);
  readonly wide = new Linear(0, 8);
  useNarrow = false;

  forward({ inputIds, labels }: CausalBatch): Tensor {
    let x = this.layer.call(this.embed.call(inputIds));
    if (this.useNarrow) x = add(x, this.wide.call(this.narrow.call(x)));
    return linearCrossEntropy(this.norm.call(x).y, this.embed.weight, labels);
  }
}

describe('parameters without elements', () => {
  const train = (stage: number, precision: object) =>
    withEngine(
      { zero_optimization: { stage }, ...precision },
      async (engine) => {
        for (let i = 0; i < 2; i++) await engine.trainBatch([tinyBatch(i)]);
        for (const name of ['first', 'unit.nothing', 'last', 'narrow.weight', 'narrow.bias', 'wide.weight']) {
          await engine.debug.setFullParameter(name, []);
          await engine.debug.setLocalParameter(name, []);
          expect((await engine.debug.getFullParameter(name)).data).toEqual(new Float32Array(0));
          expect((await engine.debug.getLocalParameter(name)).data).toEqual(new Float32Array(0));
          expect((await engine.debug.getFullOptimizerState(name, 'exp_avg'))!.data).toEqual(new Float32Array(0));
        }
        await engine.trainBatch([tinyBatch(2)]);
        return { weights: await weightsOf(engine), norm: engine.globalGradNorm };
      },
      { model: new Model() as never },
    );

  it.each([{}, { bf16: { enabled: true } }])('change nothing at any stage: %o', async (precision) => {
    const runs = [];
    for (const stage of [0, 1, 2, 3]) runs.push(await train(stage, precision));
    for (const run of runs) expect(run).toEqual(runs[0]);
    expect(runs[0]!.norm).toBeGreaterThan(0);
  });

  it('go through a checkpoint', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'empty-'));
    try {
      const config = { zero_optimization: { stage: 3 } };
      const saved = await withEngine(
        config,
        async (engine) => {
          await engine.trainBatch([tinyBatch(0)]);
          await (await engine.saveCheckpoint(directory)).finished;
          return weightsOf(engine);
        },
        { model: new Model() as never },
      );
      await withEngine(
        config,
        async (engine) => {
          await engine.loadCheckpoint(directory);
          expect(await weightsOf(engine)).toEqual(saved);
        },
        { model: new Model() as never, seed: 1 },
      );
    } finally {
      await rm(directory, { recursive: true });
    }
  });

  it('are no weights of a layer that is used', async () => {
    const model = new Model();
    model.useNarrow = true;
    await withEngine(
      {},
      async (engine) => {
        await expect(engine.trainBatch([tinyBatch(0)])).rejects.toThrow(
          '[linear] expected weight 0 with at least one input and one output',
        );
      },
      { model: model as never },
    );
  });
});

import { ConfigError, Linear, linearCrossEntropy, Module, type Tensor } from '@deepspeed-ts/core';
import { DecoderLM, gpt2 } from '@deepspeed-ts/transformers';
import { describe, expect, it } from 'vitest';
import { loadConfig } from '../config/index.js';
import { initialize } from '../initialize.js';
import { tinyBatch, usable, weightsOf, withEngine } from './test-support.js';

const LAYERS = 6;
const model = () => new DecoderLM(gpt2({ vocabSize: 17, layers: LAYERS, heads: 2, dim: 8, context: 6, dropout: 0.1 }));
const checkpointing = (activation_checkpointing: object, more: object = {}) => ({ activation_checkpointing, ...more });

/** Two steps. */
function train(config: object, recompute = false) {
  const mine = model();
  mine.recompute = recompute;
  return withEngine(
    config,
    async (engine) => {
      await engine.trainBatch([tinyBatch(0)]);
      engine.device.resetPeaks();
      await engine.trainBatch([tinyBatch(1)]);
      const { memory } = engine.report();
      return { weights: await weightsOf(engine), peak: memory.activations.peak, host: memory.host, live: memory.activations.live };
    },
    { model: mine },
  );
}

describe('activation checkpointing from the config', () => {
  it.each([
    ['every block', { enabled: true }],
    ['every second block', { every_nth_block: 2 }],
    ['two checkpoints of three blocks', { number_checkpoints: 2 }],
    ['inputs on the host', { cpu_checkpointing: true }],
    ['inputs of two checkpoints on the host', { cpu_checkpointing: true, number_checkpoints: 2 }],
    ['watched', { enabled: true, profile: true, synchronize_checkpoint_boundary: true, contiguous_memory_optimization: true }],
  ])('takes less memory and changes no bit: %s', async (_, section) => {
    for (const precision of [{}, { bf16: { enabled: true }, zero_optimization: { stage: 3 } }]) {
      const kept = await train(precision);
      const recomputed = await train(checkpointing(section, precision));
      expect(recomputed.weights).toEqual(kept.weights);
      expect(recomputed.peak).toBeLessThan(kept.peak);
      expect(recomputed.host.live).toBe(0);
    }
  });

  it('holds on the host what it takes from the device', async () => {
    const [here, away] = [await train(checkpointing({ enabled: true })), await train(checkpointing({ cpu_checkpointing: true }))];
    // Of f32 [2, 6, 8]: the first block is given one tensor, the others two.
    const bytes = 4 * 2 * 6 * 8;
    expect(away.host.peak).toBe((2 * LAYERS - 1) * bytes);
    expect(here.host.peak).toBe(0);
    expect(away.peak).toBeLessThan(here.peak);
  });

  it('goes before what the model says, or leaves it to it', async () => {
    const [kept, recomputed] = [await train({}), await train({}, true)];
    expect(recomputed.peak).toBeLessThan(kept.peak);
    expect(await train(checkpointing({}), true)).toEqual(recomputed);
    expect(await train(checkpointing({ enabled: true }))).toEqual(recomputed);
    expect(await train(checkpointing({ enabled: false }), true)).toEqual(kept);
  });

  it('times its checkpoints, once a step has ended', async () => {
    await withEngine(
      checkpointing({ enabled: true, profile: true }),
      async (engine) => {
        expect(engine.report().checkpoints).toBeUndefined();
        await engine.trainBatch([tinyBatch(0)]);
        const { checkpoints } = engine.report();
        expect(checkpoints!.forward).toBeGreaterThan(0);
        expect(checkpoints!.backward).toBeGreaterThan(0);
        expect(engine.report().checkpoints).toBeUndefined();
      },
      { model: model() },
    );
  });

  it('is an error where the model has no blocks to recompute', async () => {
    const { engine } = await initialize({ model: new Plain(), config: { ...usable, ...checkpointing({ enabled: true }) } });
    const batch = { x: { data: new Float32Array(8), shape: [1, 8] }, labels: { data: new Int32Array(1), shape: [1] } };
    await expect(engine.trainBatch([batch])).rejects.toThrow(ConfigError);
    await engine.dispose();
    expect(engine.device.describeLive()).toEqual([]);
  });

  it('refuses by name what data-parallel ranks cannot have, and choices that exclude each other', () => {
    const load = (section: object) => () => loadConfig({ ...usable, ...checkpointing(section) }, 2);
    expect(load({ partition_activations: true })).toThrow(
      /activation_checkpointing.partition_activations.*data-parallel ranks hold activations/,
    );
    expect(load({ every_nth_block: 2, number_checkpoints: 2 })).toThrow('activation_checkpointing.number_checkpoints');
    expect(load({ partition_activations: false, number_checkpoints: null, contiguous_memory_optimization: true })).not.toThrow();
    expect(load({ cpu_checkpoint: true })).toThrow('cpu_checkpointing');
  });
});

class Plain extends Module<[{ x: Tensor; labels: Tensor }], Tensor> {
  readonly layer = new Linear(8, 8);
  readonly head = new Linear(8, 5, { bias: false });

  forward({ x, labels }: { x: Tensor; labels: Tensor }): Tensor {
    return linearCrossEntropy(this.layer.call(x), this.head.weight, labels);
  }
}

import { Embedding, Linear, linearCrossEntropy, Module, type Tensor } from '@deepspeed-ts/core';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { tinyBatch, tinyModel, usable, withEngine } from '../engine/test-support.js';
import { initialize } from '../initialize.js';
import { flopsPerToken } from './model-flops.js';
import { peakFlops } from './peak.js';
import { Throughput } from './throughput.js';

/** No decoder: 17 tokens through widths 4 and 5. */
class Bigram extends Module<[{ inputIds: Tensor; labels: Tensor }], Tensor> {
  readonly embed = new Embedding(17, 4);
  readonly up = new Linear(4, 5);
  readonly head = new Linear(5, 17, { bias: false });

  forward({ inputIds, labels }: { inputIds: Tensor; labels: Tensor }): Tensor {
    return linearCrossEntropy(this.up.call(this.embed.call(inputIds)), this.head.weight, labels);
  }
}

beforeEach(() => void vi.useFakeTimers({ toFake: ['performance'] }));
afterEach(() => void vi.useRealTimers());

describe('throughput', () => {
  it('is what all ranks took in since the last call, and FLOPs are those of one device', () => {
    const throughput = new Throughput(4);
    for (let micro = 0; micro < 6; micro++) throughput.addMicroBatch(100, 1e9);
    for (let step = 0; step < 3; step++) throughput.addStep(80);
    vi.advanceTimersByTime(2000);
    expect(throughput.take(10)).toEqual({ samplesPerSecond: 120, tokensPerSecond: 1200, flopsPerDevice: 3e9, secondsLeft: (10 * 2) / 3 });
    vi.advanceTimersByTime(1000);
    expect(throughput.take(10)).toEqual({ samplesPerSecond: 0 });
  });
});

describe('the rates of an engine', () => {
  const after = (seconds: number, config: object) =>
    withEngine(config, async (engine) => {
      await engine.trainBatch([tinyBatch(0)]);
      vi.advanceTimersByTime(seconds * 1000);
      return engine.report();
    });

  it('have tokens, but MFU only where a peak is known, and time left only where the number of steps is', async () => {
    const report = await after(2, {});
    expect(report).toMatchObject({ samplesPerSecond: 1, tokensPerSecond: 6 });
    expect(report).not.toHaveProperty('mfu');
    expect(report).not.toHaveProperty('secondsLeft');
  });

  it('have MFU as model FLOPs against the peak that is given', async () => {
    const { mfu } = await after(2, { timers: { throughput: { peak_tflops: 0.001 } } });
    expect(mfu).toBeCloseTo((12 * flopsPerToken(tinyModel(), 6)!) / 2 / 1e9, 12);
  });

  it('have MFU of any model once it has been profiled, from the FLOPs that were counted', async () => {
    const config = { ...usable, timers: { throughput: { peak_tflops: 0.001 } } };
    const { engine } = await initialize({ model: new Bigram(), config, device: 'cpu' });
    await engine.trainBatch([tinyBatch(0)]);
    expect(engine.report()).not.toHaveProperty('mfu');
    const profile = engine.profile();
    await engine.trainBatch([tinyBatch(1)]);
    const { model } = await profile;
    engine.report();
    await engine.trainBatch([tinyBatch(2)]);
    vi.advanceTimersByTime(1000);
    const flops = 12 * 6 * (4 * 5 + 17 * 5);
    expect(model.forward.flops + model.backward.flops).toBe(flops);
    expect(engine.report().mfu).toBeCloseTo(flops / 1e9, 12);
    await engine.dispose();
  });

  it('have the time left where the schedule knows the number of steps', async () => {
    const scheduler = { type: 'WarmupDecayLR', params: { total_num_steps: 11 } };
    expect((await after(2, { scheduler })).secondsLeft).toBeCloseTo(20, 6);
  });
});

describe('the peak of a device', () => {
  it('is known by name for 16-bit training on common GPUs, and nowhere else', () => {
    expect(peakFlops('NVIDIA H100 80GB HBM3', 'bf16')).toBe(989.4e12);
    expect(peakFlops('NVIDIA H100 PCIe', 'f16')).toBe(756e12);
    expect(peakFlops('NVIDIA A100-SXM4-40GB', 'bf16')).toBe(312e12);
    expect(peakFlops('NVIDIA H100 80GB HBM3', 'f32')).toBeUndefined();
    expect(peakFlops('some new GPU', 'bf16')).toBeUndefined();
    expect(peakFlops(undefined, 'bf16')).toBeUndefined();
  });
});

import { cpuBackend, DecoderLM, Device, gpt2, LocalStore } from 'deepspeed-ts';
import { describe, expect, it } from 'vitest';
import { sample } from './sample.js';

describe('sampling from a model', () => {
  const draw = async (seed: number, count = 12) => {
    const device = new Device(cpuBackend());
    const model = new DecoderLM(gpt2({ vocabSize: 17, layers: 1, heads: 2, dim: 8, context: 6, initStd: 0.5 }));
    const store = new LocalStore(model, device);
    const ids = await sample({ model, prompt: [3], count, temperature: 1, topK: 17, seed });
    store.dispose();
    model.dispose();
    expect(device.liveBuffers).toBe(0);
    return ids;
  };

  it('repeats itself with the same seed and differs with another, beyond the context too', async () => {
    const first = await draw(1);
    expect(first).toHaveLength(12);
    expect(await draw(1)).toEqual(first);
    expect(await draw(2)).not.toEqual(first);
    expect(await draw(1, 5)).toEqual(first.slice(0, 5));
  });
});

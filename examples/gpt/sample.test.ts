import { cpuBackend, DecoderLM, Device, gpt2, LocalStore } from 'deepspeed-ts';
import { describe, expect, it } from 'vitest';
import { choose, sample } from './sample.js';

describe('choosing a token', () => {
  // softmax of these logits is (0.2, 0.5, 0.3).
  const logits = [0.2, 0.5, 0.3].map(Math.log);

  it('gives each token its share of the unit interval, the likeliest first', () => {
    const at = (u: number) => choose(logits, { temperature: 1, topK: 3, u });
    expect([0, 0.49, 0.51, 0.79, 0.81, 0.999].map(at)).toEqual([1, 1, 2, 2, 0, 0]);
  });

  it('sharpens with a low temperature, takes the likeliest at zero, and leaves out all but the top k', () => {
    // At temperature 1/2 the shares are squares: (0.04, 0.25, 0.09) / 0.38.
    expect([0.65, 0.66].map((u) => choose(logits, { temperature: 0.5, topK: 3, u }))).toEqual([1, 2]);
    expect(choose(logits, { temperature: 0, topK: 3, u: 0.99 })).toBe(1);
    expect(choose(logits, { temperature: 1, topK: 2, u: 0.99 })).toBe(2);
  });
});

describe('sampling from a model', () => {
  const generate = async (seed: number, prompt: readonly number[] = [3]) => {
    const device = new Device(cpuBackend());
    const model = new DecoderLM(gpt2({ vocabSize: 17, layers: 1, heads: 2, dim: 8, context: 6, initStd: 0.5 }));
    const store = new LocalStore(model, device);
    const ids: number[] = [];
    for await (const id of sample({ model, device, context: 6, prompt, count: 12, temperature: 1, topK: 17, seed })) ids.push(id);
    store.dispose();
    model.dispose();
    expect(device.liveBuffers).toBe(0);
    return ids;
  };

  it('repeats itself with the same seed and differs with another, beyond the context too', async () => {
    const first = await generate(1);
    expect(first).toHaveLength(12);
    expect(await generate(1)).toEqual(first);
    expect(await generate(2)).not.toEqual(first);
  });
});

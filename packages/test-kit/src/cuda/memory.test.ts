import { copy, Device, empty, fill, full, launch, OutOfMemoryError, type Tensor, tensor, zeros } from '@deepspeed-ts/core';
import { cudaBackend, cudaDevices } from '@deepspeed-ts/kernels-cuda';
import { DecoderLM, gpt2 } from '@deepspeed-ts/transformers';
import { initialize } from 'deepspeed-ts';
import { describe, expect, test } from 'vitest';
import { gpus } from './devices.js';

/** To compare millions of values at once. */
const bytesOf = ({ buffer, byteOffset, byteLength }: Float64Array) => new Uint8Array(buffer, byteOffset, byteLength);

describe.skipIf(gpus() === 0)("a GPU's memory", () => {
  test('that is not enough is an error with numbers and a way out, and the GPU goes on', async () => {
    const device = new Device(cudaBackend());
    const kept = full(device, [1024], 'f32', 7);
    const { memory } = cudaDevices()[0]!;
    let error: unknown;
    try {
      device.allocate(2 * memory, 'activations');
    } catch (caught) {
      error = caught;
    }
    expect(error).toBeInstanceOf(OutOfMemoryError);
    expect(error).toMatchObject({ device: 'cuda', requested: 2 * memory, live: 4096 });
    expect((error as Error).message).toMatch(/asked for \d+ bytes with 4096 bytes live .*activations .*help/s);
    fill(kept, 8);
    expect((await kept.read()).data.every((value) => value === 8)).toBe(true);
    kept.dispose();
    expect(device.liveBuffers).toBe(0);
  });

  // It takes the memory of every other test on the same GPU, so it waits to be asked for.
  test.runIf(process.env.DEEPSPEED_TS_TEST_EXHAUSTION)('can be used up piece by piece, given back, and used again', async () => {
    const device = new Device(cudaBackend());
    const held: Tensor[] = [];
    const piece = Math.floor(cudaDevices()[0]!.memory / 16 / 4);
    expect(() => {
      for (;;) held.push(zeros(device, [piece], 'f32'));
    }).toThrow(OutOfMemoryError);
    expect(held.length).toBeGreaterThan(4);
    const end = held.at(-1)!.narrow(piece - 4, 4);
    expect((await end.read()).data).toEqual(new Float64Array(4));
    end.dispose();
    const count = held.length;
    for (const tensor of held.splice(0)) tensor.dispose();
    for (let i = 0; i < count; i++) held.push(zeros(device, [piece], 'f32'));
    for (const tensor of held) tensor.dispose();
    await device.backend.synchronize();
    cudaBackend().trim();
    expect(device.backend.memory().live).toBe(0);
  });

  test('may lie on the host, where it counts apart and comes back as it was', async () => {
    const device = new Device(cudaBackend());
    for (const n of [1, 1037, 3_000_001]) {
      for (const dtype of ['f32', 'bf16'] as const) {
        const values = Float64Array.from({ length: n }, (_, i) => (i % 251) - 125);
        const here = tensor(device, values, dtype);
        const { live } = device.backend.memory();
        const away = empty(device, [n], dtype, { kind: 'host', host: true });
        const back = empty(device, [n], dtype);
        launch(copy, [here], [away], {});
        fill(here, 0);
        launch(copy, [away], [back], {});
        for (const copied of [back, away]) expect(Buffer.compare(bytesOf((await copied.read()).data), bytesOf(values))).toBe(0);
        const { byteLength } = back;
        expect(device.backend.memory().live).toBe(live + byteLength);
        expect(device.memory('host').live).toBe(byteLength);
        for (const tensor of [here, away, back]) tensor.dispose();
      }
    }
    expect(device.liveBuffers).toBe(0);
  });

  test('takes inputs of checkpoints to the host and back without changing a bit', async () => {
    const losses: number[][] = [];
    const peaks: number[] = [];
    for (const activation_checkpointing of [{}, { enabled: true }, { cpu_checkpointing: true, number_checkpoints: 3 }]) {
      const model = new DecoderLM(gpt2({ vocabSize: 64, layers: 6, heads: 2, dim: 64, context: 128, dropout: 0.1 }));
      const config = {
        train_micro_batch_size_per_gpu: 2,
        bf16: { enabled: true },
        optimizer: { type: 'AdamW', params: { lr: 1e-3 } },
        activation_checkpointing,
      };
      const { engine } = await initialize({ model, config, device: 'cuda' });
      const data = Int32Array.from({ length: 256 }, (_, i) => (i * 7) % 64);
      const batch = { inputIds: { data, shape: [2, 128] }, labels: { data, shape: [2, 128] } };
      const own: number[] = [];
      for (let step = 0; step < 4; step++) own.push(await engine.trainBatch([batch]));
      peaks.push(engine.device.memory('activations').peak);
      losses.push(own);
      await engine.dispose();
      expect(engine.device.describeLive()).toEqual([]);
    }
    expect(losses[1]).toEqual(losses[0]);
    expect(losses[2]).toEqual(losses[0]);
    expect(peaks[1]).toBeLessThan(peaks[0]!);
  });

  test('is counted to the byte', () => {
    const device = new Device(cudaBackend());
    device.resetPeaks();
    const a = device.allocate(1000, 'parameters');
    const b = device.allocate(5_000_001, 'activations');
    expect(device.backend.memory()).toMatchObject({ live: 5_001_001, peak: 5_001_001 });
    b.release();
    expect(device.backend.memory()).toMatchObject({ live: 1000, peak: 5_001_001 });
    a.release();
  });
});

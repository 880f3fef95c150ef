import { Device, fill, full, OutOfMemoryError, type Tensor, zeros } from '@deepspeed-ts/core';
import { cudaBackend, cudaDevices } from '@deepspeed-ts/kernels-cuda';
import { describe, expect, test } from 'vitest';
import { gpus } from './devices.js';

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

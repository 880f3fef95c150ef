import { attention, dropout, scope, tensor, uniforms, withRandom } from '@deepspeed-ts/core';
import { cpuBackend } from '@deepspeed-ts/kernels-cpu';
import { cudaBackend } from '@deepspeed-ts/kernels-cuda';
import { describe, expect, test } from 'vitest';
import { withDevice } from '../with-device.js';
import { gpus } from './devices.js';

describe.skipIf(gpus() === 0)('dropout on a GPU', () => {
  test.each([
    [7, 1, 0],
    [1 << 20, 3, 2],
    [100_003, 2 ** 40 + 77, 12_345],
  ])('draws the bits of the CPU: %d elements, seed %d, step %d', (n, seed, step) => {
    const x = Float64Array.from({ length: n }, (_, i) => (i % 97) - 48);
    const [cpu, cuda] = [cpuBackend(), cudaBackend()].map((backend) =>
      withDevice(backend, (device) =>
        withRandom({ seed, step, nextStream: 9 }, () => {
          const input = tensor(device, x, 'f32');
          const dropped = dropout(input, 0.3);
          const { data } = dropped.readSync();
          dropped.dispose();
          input.dispose();
          return data;
        }),
      ),
    );
    expect(cuda).toEqual(cpu);
  });

  // Within the softmax: a mask drawn at other positions would show as errors of the size of the values.
  test('drops the attention weights that the CPU drops', () => {
    const [batch, tokens, heads, headDim] = [2, 150, 4, 64];
    const x = uniforms({ seed: 4 }, 0, batch * tokens * 3 * heads * headDim).map((u) => 2 * u - 1);
    const [cpu, cuda] = [cpuBackend(), cudaBackend()].map((backend) =>
      withDevice(backend, (device) =>
        withRandom({ seed: 8, step: 1 }, () => {
          return scope(() => {
            const qkv = tensor(device, x, 'f32', [batch, tokens, 3 * heads * headDim]);
            return attention(qkv, { heads, headDim, dropout: 0.25 }).readSync().data;
          });
        }),
      ),
    );
    for (const [i, value] of cuda!.entries()) expect(Math.abs(value - cpu![i]!)).toBeLessThan(1e-4);
  });
});

import { adamw8bitOp, Device, fromHost, hostTensor, launch, ReferenceBackend, scope, uniforms, zeros } from '@deepspeed-ts/core';
import { cpuBackend } from 'deepspeed-ts';
import { expect, test } from 'vitest';

const N = 40_000;

/** Signs and magnitudes of nine decades, zeros among them, and the largest of a block at either end. */
const gradients = uniforms({ seed: 4 }, 0, N).map((u, i) => (i % 97 === 0 ? 0 : (i % 2 === 0 ? 1 : -1) * 10 ** (-9 * u)));

/** Moments of the gradient alone, as codes and scales. */
function codes(device: Device): number[][] {
  return scope(() => {
    const blocks = Math.ceil(N / 256);
    const states = [zeros(device, [N], 'u8'), zeros(device, [blocks], 'f32'), zeros(device, [N], 'u8'), zeros(device, [blocks], 'f32')];
    const inputs = [fromHost(device, hostTensor([N], 'f32', gradients)), fromHost(device, hostTensor([1], 'f32', [1]))];
    const attrs = { lr: 0, beta1: 0, beta2: 0, eps: 1, weightDecay: 0, bias1: 1, bias2: 1, decoupled: 1 };
    launch(adamw8bitOp, inputs, [zeros(device, [N], 'f32'), ...states], attrs);
    return states.map((state) => Array.from(state.readSync().data));
  });
}

test('the CPU finds the codes that a search of all values finds', () => {
  expect(codes(new Device(cpuBackend()))).toEqual(codes(new Device(new ReferenceBackend())));
});

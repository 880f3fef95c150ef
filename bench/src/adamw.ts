import { adamwOp, type Device, empty, full, launch } from '@deepspeed-ts/core';
import { report, time } from './measure.js';
import type { Peaks } from './peaks.js';

/** AdamW over f32 state: 28 bytes a parameter, beside the same traffic without arithmetic and a plain triad. */
export async function benchAdamw(device: Device, peaks: Peaks, peerGBs?: number): Promise<void> {
  const n = 32 << 20;
  const attrs = { lr: 1e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, bias1: 0.1, bias2: 0.05, decoupled: 1 };
  const coefficient = full(device, [1], 'f32', 1);
  const [grad, master, m, v] = [0.01, 1, 0, 0].map((value) => full(device, [n], 'f32', value)) as [
    ReturnType<typeof full>,
    ...ReturnType<typeof full>[],
  ];
  const low = empty(device, [n], 'bf16');
  for (const [name, outputs, bytes] of [
    ['adamw f32', [master!, m!, v!], 28],
    ['adamw f32 + bf16 copy', [master!, m!, v!, low], 30],
  ] as const) {
    const { min } = await time(async () => {
      launch(adamwOp, [grad, coefficient], [...outputs], attrs);
      await device.backend.synchronize();
    });
    const rate = (bytes * n) / min / 1e6;
    report({
      bench: name,
      shape: `${n} parameters`,
      GBs: rate,
      ofStream: rate / peaks.adamStreamGBs,
      ofTriad: rate / peaks.triadGBs,
      ...(peerGBs && bytes === 28 && { peer: peerGBs, ratio: rate / peerGBs }),
    });
  }
  for (const t of [coefficient, grad, master!, m!, v!, low]) t.dispose();
}

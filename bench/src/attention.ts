import { attention, type Device, empty, launch, matmul, noGrad, ops, scope } from '@deepspeed-ts/core';
import { random } from './gemm.js';
import { report, time } from './measure.js';
import type { Peaks } from './peaks.js';

/** The small products of attention (48 heads of 256 tokens, 64 wide), the fused kernel that replaces them, and one row by a matrix. */
export async function benchAttention(device: Device, peaks: Peaks): Promise<void> {
  const [heads, tokens, size] = [48, 256, 64];
  const flops = 2 * heads * tokens * tokens * size;
  const q = random(device, [heads, tokens, size]);
  const k = random(device, [heads, tokens, size]);
  const scores = await time(() => run(() => matmul(q, k, { transB: true })));
  report({
    bench: 'batched q k^T',
    shape: `${heads}x(${tokens}x${tokens}x${size})`,
    gflops: flops / scores.min / 1e6,
    ofPeak: flops / scores.min / 1e6 / peaks.fmaGflops,
  });

  const qkv = random(device, [8, tokens, 3 * 6 * size]);
  const fused = await time(() => run(() => attention(qkv, { heads: 6, headDim: size })));
  // Causal: half of both products.
  report({
    bench: 'attention forward',
    shape: '8x6 heads, 256 tokens',
    gflops: flops / fused.min / 1e6,
    ofPeak: flops / fused.min / 1e6 / peaks.fmaGflops,
  });

  const [n, depth] = [4096, 4096];
  const x = random(device, [1, depth]);
  const w = random(device, [n, depth]);
  const y = empty(device, [1, n], 'f32').keep();
  const linear = ops.find(({ name }) => name === 'linear')!;
  const gemv = await time(() => run(() => launch(linear, [x, w], [y], { n: 1, hasBias: 0, layout: 0 })));
  const rate = (4 * n * depth) / gemv.min / 1e6;
  report({ bench: 'one row by a matrix', shape: `${n}x${depth} f32`, GBs: rate, ofRead: rate / peaks.readGBs });
  for (const t of [q, k, qkv, x, w, y]) t.dispose();

  async function run(body: () => unknown): Promise<void> {
    noGrad(() => scope(() => void body()));
    await device.backend.synchronize();
  }
}

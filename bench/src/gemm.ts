import { type Device, empty, launch, normals, ops, scope, type Tensor, tensor } from '@deepspeed-ts/core';
import { geometricMean, report, time } from './measure.js';
import type { Peaks } from './peaks.js';
import { trainingProducts } from './shapes.js';

const matmul = ops.find(({ name }) => name === 'matmul')!;

/** f32 matrix products at training sizes, beside the peak of multiply-adds and, where a peer ran, its rates on the same shapes. */
export async function benchGemm(device: Device, peaks: Peaks, peer?: readonly number[]): Promise<void> {
  const rates: number[] = [];
  for (const [i, { m, n, k, layout }] of trainingProducts.entries()) {
    const [a, b, y] = scope(() => [
      random(device, layout === 'TN' ? [k, m] : [m, k]),
      random(device, layout === 'NT' ? [n, k] : [k, n]),
      empty(device, [m, n], 'f32'),
    ]) as [Tensor, Tensor, Tensor];
    const run = async () => {
      launch(matmul, [a, b], [y], { transA: Number(layout === 'TN'), transB: Number(layout === 'NT') });
      await device.backend.synchronize();
    };
    const { min } = await time(run, { runs: 15, warmup: 3 });
    const gflops = (2 * m * n * k) / min / 1e6;
    rates.push(gflops);
    const beside = peer?.[i];
    report({
      bench: 'gemm',
      shape: `${m}x${n}x${k} ${layout}`,
      gflops,
      ofPeak: gflops / peaks.fmaGflops,
      ...(beside && { peer: beside, ratio: gflops / beside }),
    });
    for (const t of [a, b, y]) t.dispose();
  }
  const mean = geometricMean(rates);
  const peerMean = peer && geometricMean(peer);
  report({
    bench: 'gemm',
    shape: 'geometric mean',
    gflops: mean,
    ofPeak: mean / peaks.fmaGflops,
    ...(peerMean && { peer: peerMean, ratio: mean / peerMean }),
  });
}

export function random(device: Device, shape: readonly number[]): Tensor {
  const n = shape.reduce((x, size) => x * size, 1);
  // Box-Muller in JavaScript is slow; a short pattern times just the same.
  const pattern = normals({ seed: 1 }, 0, 4093);
  return tensor(
    device,
    Float64Array.from({ length: n }, (_, i) => pattern[i % pattern.length]!),
    'f32',
    shape,
  );
}

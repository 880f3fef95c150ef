import type { FloatDType } from '@deepspeed-ts/core';

/**
 * Dense peak FLOP/s of NVIDIA's GPUs with 16-bit inputs and f32 sums, from their data sheets. Name patterns as the driver gives them; the
 * first that fits counts.
 */
const PEAKS: readonly (readonly [RegExp, number])[] = [
  [/B200/, 2250e12],
  [/GH200|H200/, 989.4e12],
  [/H100 PCIe/, 756e12],
  [/H100 NVL/, 835e12],
  [/H100/, 989.4e12],
  [/A100|A800/, 312e12],
  [/L40S/, 362e12],
  [/L40/, 181e12],
  [/L4\b/, 121e12],
  [/A10\b/, 125e12],
];

/** What a device could do at most for weights of this dtype; undefined where nobody has said. f32 training is given no peak of tensor cores. */
export function peakFlops(deviceName: string | undefined, dtype: FloatDType): number | undefined {
  if (dtype === 'f32' || deviceName === undefined) return undefined;
  return PEAKS.find(([pattern]) => pattern.test(deviceName))?.[1];
}

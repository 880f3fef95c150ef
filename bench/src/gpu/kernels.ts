import { Device } from '@deepspeed-ts/core';
import { cpuBackend } from '@deepspeed-ts/kernels-cpu';
import { cudaBackend, cudaDevices, cudaLibraries, whyNoCuda } from '@deepspeed-ts/kernels-cuda';
import { expertCases } from './expert-cases.js';
import { copyCase, type KernelCase, kernelCases, launchMicroseconds, matmulCase } from './kernel-cases.js';
import { timeKernel } from './time-kernel.js';

interface Line {
  readonly op: string;
  readonly shape: string;
  readonly ms: number;
  readonly GBs?: number;
  readonly TFLOPs?: number;
  /** Of the copy, or of the large matrix product, of the same run. */
  readonly ofCeiling?: number;
}

/**
 * Each kernel beside what the GPU can do at all: bytes by the bandwidth of a copy, operations by the rate of a large matrix product.
 * JSON lines, then a table. Arguments: parts of the names to measure; none: all.
 */
export async function benchKernels(names: readonly string[]): Promise<void> {
  const device = openDevice();
  const ceilings = { GBs: (await measure(device, copyCase)).GBs!, TFLOPs: (await measure(device, matmulCase)).TFLOPs! };
  console.log(JSON.stringify({ op: 'launch, host', us: Number(launchMicroseconds(device).toFixed(2)) }));
  const lines: Line[] = [];
  const mixtral = { tokens: 8192, dim: 4096, hidden: 14336, experts: 8, k: 2 };
  for (const entry of [...kernelCases(), ...expertCases(mixtral)].filter(
    ({ op }) => names.length === 0 || names.some((name) => op.includes(name)),
  )) {
    try {
      lines.push(await measure(device, entry, ceilings));
    } catch (error) {
      console.log(JSON.stringify({ op: entry.op, shape: entry.shape, error: (error as Error).message }));
    }
  }
  console.log(`\n${'kernel'.padEnd(44)} ${'shape'.padEnd(32)} ${'ms'.padStart(8)} ${'rate'.padStart(14)}  of ceiling`);
  for (const { op, shape, ms, GBs, TFLOPs, ofCeiling } of lines) {
    const rate = GBs === undefined ? `${TFLOPs} TFLOP/s` : `${GBs} GB/s`;
    console.log(`${op.padEnd(44)} ${shape.padEnd(32)} ${ms.toFixed(3).padStart(8)} ${rate.padStart(14)}  ${percent(ofCeiling)}`);
  }
}

/** The CPU only to try the benchmark itself: DEEPSPEED_TS_DEVICE=cpu. */
function openDevice(): Device {
  if (process.env.DEEPSPEED_TS_DEVICE === 'cpu') return new Device(cpuBackend());
  const why = whyNoCuda();
  if (why) throw new Error(`no GPU to measure: ${why}`);
  const backend = cudaBackend();
  console.log(JSON.stringify({ gpu: cudaDevices()[backend.index], libraries: cudaLibraries() }));
  return new Device(backend);
}

async function measure(device: Device, entry: KernelCase, ceilings?: { GBs: number; TFLOPs: number }): Promise<Line> {
  const prepared = entry.prepare(device);
  try {
    const ms = await timeKernel(device, prepared.run);
    const { op, shape, bytes, flops } = entry;
    const rate = bytes ? { GBs: Math.round(bytes / ms / 1e6) } : { TFLOPs: Number((flops! / ms / 1e9).toFixed(1)) };
    const ofCeiling = ceilings && (bytes ? rate.GBs! / ceilings.GBs : rate.TFLOPs! / ceilings.TFLOPs);
    const line = { op, shape, ms: Number(ms.toFixed(4)), ...rate, ...(ofCeiling && { ofCeiling: Number(ofCeiling.toFixed(3)) }) };
    console.log(JSON.stringify(line));
    return line;
  } finally {
    for (const tensor of prepared.tensors) tensor.dispose();
  }
}

function percent(ratio: number | undefined): string {
  return ratio === undefined ? '' : `${(100 * ratio).toFixed(0)} %`;
}

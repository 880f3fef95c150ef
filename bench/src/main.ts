import { availableParallelism } from 'node:os';
import { Device } from '@deepspeed-ts/core';
import { cpuBackend } from '@deepspeed-ts/kernels-cpu';
import { benchAdamw } from './adamw.js';
import { benchAttention } from './attention.js';
import { benchCheckpoint } from './checkpoint.js';
import { benchCollectives } from './collectives.js';
import { benchGemm } from './gemm.js';
import { benchGptStep } from './gpt-step.js';
import { benchLaunches } from './launches.js';
import { report } from './measure.js';
import { measurePeaks } from './peaks.js';
import { runPeer } from './peer.js';

const all = ['gemm', 'attention', 'adamw', 'launches', 'gpt', 'collectives', 'checkpoint'] as const;

/** Loaded only when asked for: some open a GPU. */
const alone: Readonly<Record<string, (args: readonly string[]) => Promise<void>>> = {
  gpu: async (args) => (await import('./gpu/train.js')).benchTraining(args),
  trainer: async (args) => (await import('./gpu/trainer.js')).benchTrainer(args),
  decode: async (args) => (await import('./decode.js')).benchDecode(args),
  curve: async (args) => (await import('./gpu/curve.js')).benchCurve(args),
  load: async (args) => (await import('./load.js')).benchLoad(args),
  kernels: async (args) => (await import('./gpu/kernels.js')).benchKernels(args),
};

/**
 * `bench [name...] [--threads 1,2] [--json]`: each figure beside the machine's peaks, and beside PyTorch where BENCH_PYTHON is set.
 * `bench gpu [options]` and `bench kernels [name...]` measure a GPU: training steps, and each kernel beside the GPU's ceilings;
 * `bench trainer [options]` measures what the Trainer costs beside the bare engine;
 * `bench load [--shape NAME] [--device NAME]` loads a model directory, beside a bare read of its file;
 * `bench decode [options]` measures generation, on the CPU or a GPU;
 * `bench curve --out FOLDER` trains on tokens that can be learned, for PyTorch to go the same way.
 */
async function main(args: readonly string[]): Promise<void> {
  const only = alone[args[0]!];
  if (only) return only(args.slice(1));
  const at = args.indexOf('--threads');
  const threads = (at >= 0 ? args[at + 1]! : [...new Set([1, availableParallelism()])].join(',')).split(',').map(Number);
  const names = args.filter((arg, i) => !arg.startsWith('--') && (at < 0 || i !== at + 1));
  const unknown = names.find((name) => !(all as readonly string[]).includes(name));
  if (unknown) {
    const others = Object.keys(alone).join(', ');
    throw new Error(`there is no benchmark '${unknown}'; expected some of ${all.join(', ')}, or one of ${others} alone`);
  }
  const wanted = (name: (typeof all)[number]) => names.length === 0 || names.includes(name);
  const backend = cpuBackend();
  const device = new Device(backend);
  for (const count of threads) {
    backend.threads = count;
    const peaks = measurePeaks(count);
    report({ bench: 'peaks', isa: backend.instructionSet, ...peaks });
    const peer = runPeer(count);
    if (peer) report({ bench: 'peer', version: `PyTorch ${peer.version}`, threads: count });
    if (wanted('gemm')) await benchGemm(device, peaks, peer?.gemm);
    if (wanted('attention')) await benchAttention(device, peaks);
    if (wanted('adamw')) await benchAdamw(device, peaks, peer?.adamwGBs);
    if (wanted('launches')) await benchLaunches(device);
    if (wanted('gpt')) await benchGptStep(peaks, peer?.gptStepMs);
  }
  if (wanted('collectives')) await benchCollectives();
  if (wanted('checkpoint')) await benchCheckpoint();
}

await main(process.argv.slice(2));

import {
  type Device,
  fromHost,
  type HostTensor,
  launch,
  type Op,
  ops,
  Random,
  rounded,
  type Sample,
  scope,
  WorldOfOne,
} from '@deepspeed-ts/core';
import { cpuBackend } from '@deepspeed-ts/kernels-cpu';
import { cudaBackend } from '@deepspeed-ts/kernels-cuda';
import { describe, expect, test } from 'vitest';
import { runWorld } from '../spawn-world.js';
import { withDevice } from '../with-device.js';
import { optimizerContract, optimizerRuns as runs } from '../zero/optimizer-contract.js';
import { trainAll } from '../zero/optimizer-run.js';
import type { OptimizersArgs } from '../zero/optimizers-rank.js';
import { gpus } from './devices.js';

// biome-ignore lint/suspicious/noExplicitAny: ops differ in their attributes
type AnyOp = Op<any>;

/** Each operation of these formulas is rounded once, in one order, on every device. */
const FORMULAS = [
  ...['adagrad', 'adamw', 'adamw_8bit', 'decode_8bit', 'lamb_moments', 'lamb_ratio', 'lamb_update', 'lion', 'muon_momentum'],
  ...['blend', 'normalize', 'sgd', 'sum_squares'],
];

describe.skipIf(gpus() === 0)('on a GPU', () => {
  optimizerContract(async () => [await trainAll(runs, new WorldOfOne(), cudaBackend())]);

  test.each(FORMULAS)('%s gives the bits of the CPU', (name) => {
    const op = ops.find((op) => op.name === name) as AnyOp;
    for (const sample of op.samples(new Random()) as Sample<Record<string, number>>[]) {
      const expected = withDevice(cpuBackend(), (device) => results(op, sample, device));
      expect(
        withDevice(cudaBackend(), (device) => results(op, sample, device)),
        sample.note ?? 'the plain case',
      ).toEqual(expected);
    }
  });
});

describe.skipIf(gpus(2) < 2)('on two GPUs', () => {
  const script = new URL('../zero/optimizers-rank.ts', import.meta.url);
  optimizerContract(() => runWorld(script, 2, { args: { runs, device: 'cuda' } satisfies OptimizersArgs, timeoutMs: 120_000 }));
});

function results(op: AnyOp, { inputs, attrs, outputs }: Sample<Record<string, number>>, device: Device): number[][] {
  return scope(() => {
    const specs = op.infer(inputs, attrs);
    const on = (host: HostTensor) => fromHost(device, rounded(host));
    const zeros = specs.map(({ shape, dtype }) => ({ shape, dtype, data: new Float64Array(shape.reduce((a, b) => a * b, 1)) }));
    const outs = (outputs ?? zeros).map(on);
    launch(op, inputs.map(on), outs, attrs);
    return outs.map((out) => Array.from(out.readSync().data));
  });
}

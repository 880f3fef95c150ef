import { join } from 'node:path';
import type { HostTensor } from '@deepspeed-ts/core';
import { DecoderLM, decoderConfig, nextTokenLabels } from '@deepspeed-ts/transformers';
import { type DeviceName, initialize } from 'deepspeed-ts';
import { readJson, readTensors } from './golden.js';
import type { RankContext } from './spawn-world.js';

export interface DeepSpeedRun {
  readonly losses: number[];
  readonly gradNorm: number;
  readonly lr: number;
  /** `param.*`, `exp_avg.*` and `exp_avg_sq.*`, as in expected.safetensors. */
  readonly state: Map<string, Float64Array>;
}

/** Trains as a recorded DeepSpeed run did: its config, weights and this rank's batches. */
export default async function run({ rank, args }: RankContext<{ folder: string; device: DeviceName }>): Promise<DeepSpeedRun> {
  const { config } = readJson<{ config: object }>(join(args.folder, 'expected.json'));
  const weights = readTensors(join(args.folder, 'initial.safetensors'));
  const batches = readTensors(join(args.folder, 'batches.safetensors'));
  const model = new DecoderLM(decoderConfig(readJson(join(args.folder, 'config.json'))));
  const { engine } = await initialize({ model, config, device: args.device, initial: (name) => weights.get(name)?.data });
  const losses: number[] = [];
  for (let step = 0; batches.has(`step${step}.rank${rank}`); step++) {
    const loss = engine.forward(batchOf(batches.get(`step${step}.rank${rank}`)!));
    engine.backward(loss);
    losses.push(await loss.item());
    await engine.step();
  }
  const state = new Map<string, Float64Array>();
  for await (const [name, value] of engine.weights()) state.set(`param.${name}`, value.data);
  for (const kind of ['exp_avg', 'exp_avg_sq']) {
    for await (const [name, value] of engine.optimizerState(kind)) state.set(`${kind}.${name}`, value.data);
  }
  const result = { losses, gradNorm: engine.globalGradNorm, lr: engine.lr[0]!, state };
  await engine.dispose();
  model.dispose();
  if (engine.device.liveBuffers > 0) throw new Error(`buffers are still alive: ${engine.device.describeLive().join('; ')}`);
  return result;
}

function batchOf({ data, shape }: HostTensor) {
  return { inputIds: { data: Int32Array.from(data), shape }, labels: { data: nextTokenLabels(data, shape[1]!), shape } };
}

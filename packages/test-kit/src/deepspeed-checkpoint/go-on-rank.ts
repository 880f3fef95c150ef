import { join } from 'node:path';
import type { HostTensor } from '@deepspeed-ts/core';
import { DecoderLM, decoderConfig, nextTokenLabels } from '@deepspeed-ts/transformers';
import { initialize } from 'deepspeed-ts';
import { readJson, readTensors } from '../golden.js';
import type { RankContext } from '../spawn-world.js';

export interface GoneOn {
  readonly globalSteps: number;
  readonly clientState: unknown;
  /** Of the steps after the recorded run, on its batches over again. */
  readonly losses: number[];
  readonly lr: number;
}

export interface GoOnArgs {
  readonly folder: string;
  /** A converted checkpoint; without it the recorded run is trained again first. */
  readonly checkpoint: string | undefined;
  readonly config: Readonly<Record<string, unknown>>;
}

/** Takes two steps more than a recorded run of DeepSpeed's. */
export default async function run({ rank, args }: RankContext<GoOnArgs>): Promise<GoneOn> {
  const { config } = readJson<{ config: object }>(join(args.folder, 'expected.json'));
  const weights = readTensors(join(args.folder, 'initial.safetensors'));
  const batches = readTensors(join(args.folder, 'batches.safetensors'));
  const model = new DecoderLM(decoderConfig(readJson(join(args.folder, 'config.json'))));
  const initial = (name: string) => (args.checkpoint ? undefined : weights.get(name)?.data);
  const { engine } = await initialize({ model, config: { ...config, ...args.config }, device: 'cpu', initial });
  const train = async (step: number) => {
    const loss = engine.forward(batchOf(batches.get(`step${step}.rank${rank}`)!));
    engine.backward(loss);
    const value = await loss.item();
    await engine.step();
    return value;
  };
  let clientState: unknown;
  if (args.checkpoint) clientState = (await engine.loadCheckpoint(args.checkpoint))!.clientState;
  else for (let step = 0; step < 5; step++) await train(step);
  const losses = [await train(0), await train(1)];
  const result = { globalSteps: engine.globalSteps, clientState, losses, lr: engine.lr[0]! };
  await engine.dispose();
  return result;
}

function batchOf({ data, shape }: HostTensor) {
  return { inputIds: { data: Int32Array.from(data), shape }, labels: { data: nextTokenLabels(data, shape[1]!), shape } };
}

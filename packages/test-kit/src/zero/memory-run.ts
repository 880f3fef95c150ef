import { type Backend, type Communicator, type MemoryKind, type Unit, unitsOf } from '@deepspeed-ts/core';
import { DecoderLM, gpt2 } from '@deepspeed-ts/transformers';
import { type Batch, initialize } from 'deepspeed-ts';
import { close } from './training-run.js';

export type StateKind = 'parameters' | 'gradients' | 'optimizer';
export type Bytes = Readonly<Record<StateKind, number>>;

export interface MemoryRun {
  readonly stage: 0 | 1 | 2 | 3;
  readonly bf16: boolean;
  readonly accumulation: number;
  readonly recompute?: boolean;
}

/** Bytes of one rank. */
export interface MemoryResult {
  /** Alive when all gradients of a step are there and the step has not begun. */
  readonly beforeStep: Bytes;
  readonly afterStep: Bytes;
  /** The most, by kind, over three steps. */
  readonly peak: Bytes;
}

/** Blocks are the largest units here, as in any real model. */
export function memoryModel(recompute = false): DecoderLM {
  const model = new DecoderLM(gpt2({ vocabSize: 40, layers: 5, heads: 2, dim: 16, context: 8 }));
  model.recompute = recompute;
  return model;
}

export function memoryUnits(): Unit[] {
  return unitsOf(memoryModel());
}

/** Trains a few steps and notes what is held when. */
export async function measureMemory(run: MemoryRun, communicator: Communicator, backend?: Backend): Promise<MemoryResult> {
  const { engine } = await initialize({
    model: memoryModel(run.recompute),
    communicator,
    ...(backend && { backend }),
    config: {
      train_micro_batch_size_per_gpu: 1,
      gradient_accumulation_steps: run.accumulation,
      gradient_clipping: 1,
      bf16: { enabled: run.bf16 },
      zero_optimization: { stage: run.stage },
      optimizer: { type: 'AdamW', params: { lr: 1e-3 } },
    },
  });
  const data = Int32Array.from({ length: 8 }, (_, i) => (i * 7) % 40);
  const batch: Batch = { inputIds: { data, shape: [1, 8] }, labels: { data, shape: [1, 8] } };
  const bytes = (which: 'live' | 'peak'): Bytes => {
    const of = (kind: MemoryKind) => engine.device.memory(kind)[which];
    return { parameters: of('parameters'), gradients: of('gradients'), optimizer: of('optimizer') };
  };
  let beforeStep = bytes('live');
  for (let micro = 0; micro < 3 * run.accumulation; micro++) {
    engine.backward(engine.forward(batch));
    beforeStep = bytes('live');
    await engine.step();
  }
  const result = { beforeStep, afterStep: bytes('live'), peak: bytes('peak') };
  await close(engine);
  return result;
}

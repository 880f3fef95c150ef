import type { LogEntry } from '@deepspeed-ts/transformers';
import type { RankContext } from '../spawn-world.js';
import { datasetOf, hashOf, rows, tinyModel, withTrainer } from './support.js';

export interface TrainerRankArgs {
  readonly stage: number;
  readonly folder: string;
  /** Say so at this step and wait to be killed. */
  readonly dieAt?: number;
  readonly resume?: boolean;
  readonly bf16?: boolean;
}

export interface TrainerRankResult {
  readonly hash: string;
  readonly logs: readonly LogEntry[];
  readonly steps: number;
}

/** Two epochs over rows of unequal lengths, with dropout, in steps of three micro-batches of which the last of an epoch has fewer. */
export default async function rank({ args, say }: RankContext<TrainerRankArgs>): Promise<TrainerRankResult> {
  const { stage, folder, dieAt, resume = false, bf16 = false } = args;
  const die = async (step: number) => {
    if (step !== dieAt) return;
    say('ready to die');
    await new Promise((resolve) => setTimeout(resolve, 60_000));
  };
  return withTrainer(
    {
      model: tinyModel(0.1),
      trainDataset: datasetOf(rows(39)),
      evalDataset: datasetOf(rows(7, 2)),
      callbacks: [{ onStepEnd: (_args, state) => die(state.globalStep) }],
      args: {
        outputDir: folder,
        deepspeed: {
          zero_optimization: { stage },
          bf16: { enabled: 'auto' },
          train_micro_batch_size_per_gpu: 'auto',
          optimizer: { type: 'AdamW', params: { lr: 'auto', weight_decay: 'auto' } },
        },
        bf16,
        gradientAccumulationSteps: 3,
        numTrainEpochs: 2,
        weightDecay: 0.1,
        warmupSteps: 2,
        lrSchedulerType: 'cosine',
        loggingSteps: 1,
        evalStrategy: 'steps',
        evalSteps: 4,
        saveStrategy: 'steps',
        saveSteps: 1,
        saveTotalLimit: 2,
        resumeFromCheckpoint: resume,
      },
    },
    async (trainer) => {
      await trainer.train();
      return { hash: await hashOf(trainer), logs: trainer.state.logHistory, steps: trainer.state.globalStep };
    },
  );
}

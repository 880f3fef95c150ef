import type { JsonRecord } from './arguments.js';

/** What was logged at a step: metrics by the names that Hugging Face gives them, such as `loss` and `eval_loss`. */
export type LogEntry = Readonly<Record<string, number>>;

/** Where a training stands. Equal on all ranks but for `isWorldProcessZero`. */
export class TrainerState {
  /** Epochs so far, a fraction within one. */
  epoch = 0;
  /** Optimizer steps so far. */
  globalStep = 0;
  maxSteps = 0;
  numTrainEpochs = 0;
  trainBatchSize = 0;
  /** Steps between logs, evaluations and checkpoints. */
  loggingSteps = 500;
  evalSteps = 500;
  saveSteps = 500;
  logHistory: LogEntry[] = [];
  bestMetric: number | null = null;
  bestGlobalStep: number | null = null;
  bestModelCheckpoint: string | null = null;

  constructor(readonly isWorldProcessZero: boolean) {}

  /** As trainer_state.json has it. */
  toJSON(): JsonRecord {
    return {
      best_global_step: this.bestGlobalStep,
      best_metric: this.bestMetric,
      best_model_checkpoint: this.bestModelCheckpoint,
      epoch: this.epoch,
      eval_steps: this.evalSteps,
      global_step: this.globalStep,
      is_world_process_zero: this.isWorldProcessZero,
      log_history: [...this.logHistory],
      logging_steps: this.loggingSteps,
      max_steps: this.maxSteps,
      num_train_epochs: this.numTrainEpochs,
      save_steps: this.saveSteps,
      train_batch_size: this.trainBatchSize,
    };
  }

  /** Takes over what has happened; how long the training is, and how often it does what, stay as they are. */
  restore(json: JsonRecord): void {
    this.epoch = json.epoch as number;
    this.globalStep = json.global_step as number;
    this.logHistory = [...(json.log_history as unknown as LogEntry[])];
    this.bestMetric = json.best_metric as number | null;
    this.bestGlobalStep = json.best_global_step as number | null;
    this.bestModelCheckpoint = json.best_model_checkpoint as string | null;
  }
}

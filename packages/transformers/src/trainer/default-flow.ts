import type { TrainerCallback } from './callbacks.js';

/** Logs, evaluates, saves and ends as the arguments say. */
export const defaultFlow: TrainerCallback = {
  onStepEnd(args, state, control) {
    const { globalStep: step } = state;
    const due = (strategy: string, every: number) => strategy === 'steps' && step % every === 0;
    const mayEvaluate = args.evalStrategy === 'steps' && args.evalDelay <= step;
    if ((step === 1 && args.loggingFirstStep) || due(args.loggingStrategy, state.loggingSteps)) control.shouldLog = true;
    if (mayEvaluate && due(args.evalStrategy, state.evalSteps)) control.shouldEvaluate = true;
    if (due(args.saveStrategy, state.saveSteps)) control.shouldSave = true;
    if (step < state.maxSteps) return;
    control.shouldTrainingStop = true;
    if (mayEvaluate) control.shouldEvaluate = true;
    if (args.saveStrategy === 'steps') control.shouldSave = true;
  },
  onEpochEnd(args, state, control) {
    if (args.loggingStrategy === 'epoch') control.shouldLog = true;
    if (args.evalStrategy === 'epoch' && args.evalDelay <= state.epoch) control.shouldEvaluate = true;
    if (args.saveStrategy === 'epoch') control.shouldSave = true;
  },
};

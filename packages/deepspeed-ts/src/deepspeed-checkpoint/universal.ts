import { existsSync, readdirSync, statSync } from 'node:fs';
import { join, relative } from 'node:path';
import { describePickled, type PickleValue, type TorchFile, TorchTensor } from '@deepspeed-ts/core';
import { DeepSpeedCheckpointError } from './error.js';
import { Fields, numberOf } from './fields.js';
import { wholeOf } from './pieces.js';
import type { ParameterState, TrainedState } from './state.js';

const WEIGHTS = 'fp32.pt';

/** A universal checkpoint: a folder for each parameter, with a file for each of its states. */
export function readUniversal(folder: string, open: (path: string) => TorchFile): TrainedState {
  const parameters = new Map<string, ParameterState>();
  const steps: number[] = [];
  for (const path of parameterFolders(folder)) {
    const name = relative(folder, path);
    const weights = tensorOf(open(join(path, WEIGHTS)));
    const states = new Map<string, ReturnType<typeof wholeOf>>();
    for (const file of readdirSync(path).sort()) {
      const kind = file.replace(/\.pt$/, '');
      if (kind === file || file === WEIGHTS) continue;
      const opened = open(join(path, file));
      if (kind === 'step') {
        const count = numberOf(savedValue(opened));
        if (count !== undefined) steps.push(count);
        continue;
      }
      const tensor = tensorOf(opened);
      if (tensor.numel !== weights.numel)
        throw new DeepSpeedCheckpointError(opened.path, `expected ${weights.numel} elements, got ${describePickled(tensor)}`);
      states.set(kind, wholeOf(tensor));
    }
    parameters.set(name, { name, shape: weights.shape, weights: wholeOf(weights), states });
  }
  if (parameters.size === 0) throw new DeepSpeedCheckpointError(folder, `there is no <parameter>/${WEIGHTS}`);
  return { parameters, groups: [], steps, lossScaler: undefined };
}

/** Folders that hold a parameter; names with a slash make folders in folders. */
function* parameterFolders(folder: string): Generator<string> {
  for (const name of readdirSync(folder).sort()) {
    const path = join(folder, name);
    if (!statSync(path).isDirectory()) continue;
    if (existsSync(join(path, WEIGHTS))) yield path;
    else yield* parameterFolders(path);
  }
}

function savedValue(file: TorchFile): PickleValue {
  return file.root instanceof Map ? (Fields.of(file.path, file.root).get('param') ?? null) : file.root;
}

function tensorOf(file: TorchFile): TorchTensor {
  const value = savedValue(file);
  if (value instanceof TorchTensor) return value;
  throw new DeepSpeedCheckpointError(file.path, `expected a tensor, got ${describePickled(value)}`);
}

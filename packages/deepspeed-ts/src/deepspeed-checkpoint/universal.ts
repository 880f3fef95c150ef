import { existsSync, readdirSync, statSync } from 'node:fs';
import { join, relative } from 'node:path';
import { describePickled, type PickleValue, type TorchFile, TorchTensor } from '@deepspeed-ts/core';
import { DeepSpeedCheckpointError } from './error.js';
import { Fields, numberOf, numelOfShape } from './fields.js';
import type { ModelStates } from './model-states.js';
import { type Pieces, sliceOf } from './pieces.js';
import type { ParameterState, TrainedState } from './state.js';

const WEIGHTS = 'fp32.pt';

/** A universal checkpoint: a folder for each parameter, with a file for each of its states; those made from stage 3 are without shape. */
export function readUniversal(folder: string, model: ModelStates, open: (path: string) => TorchFile): TrainedState {
  const shapes = new Map(model.shapes?.flatMap((group) => [...group]));
  const parameters = new Map<string, ParameterState>();
  const steps: number[] = [];
  for (const path of parameterFolders(folder)) {
    const name = relative(folder, path);
    const weights = tensorOf(open(join(path, WEIGHTS)));
    const shape = shapes.get(name) ?? weights.shape;
    const piecesOf = (tensor: TorchTensor, file: string): Pieces => {
      const count = numelOfShape(shape);
      const pieces = sliceOf([tensor], 0, count);
      if (pieces) return pieces;
      throw new DeepSpeedCheckpointError(file, `expected ${count} elements, got ${describePickled(tensor)}`);
    };
    const states = new Map<string, Pieces>();
    for (const file of readdirSync(path).sort()) {
      const kind = file.replace(/\.pt$/, '');
      if (kind === file || file === WEIGHTS) continue;
      const opened = open(join(path, file));
      if (kind === 'step') {
        const count = numberOf(savedValue(opened));
        if (count !== undefined) steps.push(count);
        continue;
      }
      states.set(kind, piecesOf(tensorOf(opened), opened.path));
    }
    parameters.set(name, { name, shape, weights: piecesOf(weights, join(path, WEIGHTS)), states });
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

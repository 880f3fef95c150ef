import { type Module, namedParameters, type Shape } from '@deepspeed-ts/core';
import { CheckpointError } from './error.js';

/** How the parameters of a model and of a checkpoint differ. */
export interface Differences {
  /** In the model only. */
  readonly missing: readonly string[];
  /** In the checkpoint only. */
  readonly unexpected: readonly string[];
  /** In both with different shapes. */
  readonly mismatched: readonly { readonly name: string; readonly expected: Shape; readonly got: Shape }[];
}

export function compare(model: Module, weights: ReadonlyMap<string, Shape>): Differences {
  const parameters = namedParameters(model);
  const mismatched: { name: string; expected: Shape; got: Shape }[] = [];
  for (const [name, { shape }] of parameters) {
    const got = weights.get(name);
    if (got && describe(got) !== describe(shape)) mismatched.push({ name, expected: shape, got });
  }
  return {
    missing: [...parameters.keys()].filter((name) => !weights.has(name)),
    unexpected: [...weights.keys()].filter((name) => !parameters.has(name)),
    mismatched,
  };
}

/** @throws CheckpointError listing all differences, and which names look like the same parameter under another name */
export function assertSame(differences: Differences, model: Module, weights: ReadonlyMap<string, Shape>, path: string): void {
  const { missing, unexpected, mismatched } = differences;
  if (missing.length + unexpected.length + mismatched.length === 0) return;
  const parameters = namedParameters(model);
  const last = (name: string) => name.slice(name.lastIndexOf('.') + 1);
  const lines = [
    ...mismatched.map(({ name, expected, got }) => `${name}: the model has ${describe(expected)}, the checkpoint ${describe(got)}`),
    ...missing.map((name) => {
      const { shape } = parameters.get(name)!;
      const twin = unexpected.find((other) => last(other) === last(name) && describe(weights.get(other)!) === describe(shape));
      return `${name} ${describe(shape)} is missing in the checkpoint${twin ? `; renamed from ${twin}?` : ''}`;
    }),
    ...unexpected.map((name) => `${name} ${describe(weights.get(name)!)} is not in the model`),
  ];
  const shown = lines.slice(0, 20);
  if (lines.length > shown.length) shown.push(`and ${lines.length - shown.length} more`);
  const text = `${path} does not fit the model:\n- ${shown.join('\n- ')}\nLoad it with { strict: false } to take over what fits`;
  throw new CheckpointError('ERR_CHECKPOINT_MISMATCH', text, path);
}

function describe(shape: Shape): string {
  return `[${shape.join(', ')}]`;
}

import { editDistance, type Module, namedParameters, type Shape } from '@deepspeed-ts/core';
import { CheckpointError } from './error.js';

/** How the parameters of a model and of a checkpoint differ. */
export interface Differences {
  /** In the model only. */
  readonly missing: readonly string[];
  /** In the checkpoint only. */
  readonly unexpected: readonly string[];
  /** In both with different shapes. */
  readonly mismatched: readonly { readonly name: string; readonly expected: Shape; readonly got: Shape }[];
  /** Unexpected name -> missing name of what looks like the same parameter: a guess, to be looked at and given as `rename`. */
  readonly renamed: Readonly<Record<string, string>>;
}

/** `excluded` are parameters that were left out of the checkpoint on purpose. */
export function compare(model: Module, weights: ReadonlyMap<string, Shape>, excluded: ReadonlySet<string>): Differences {
  const parameters = namedParameters(model);
  const mismatched: { name: string; expected: Shape; got: Shape }[] = [];
  for (const [name, { shape }] of parameters) {
    const got = weights.get(name);
    if (got && describe(got) !== describe(shape)) mismatched.push({ name, expected: shape, got });
  }
  const missing = [...parameters.keys()].filter((name) => !weights.has(name) && !excluded.has(name));
  const unexpected = [...weights.keys()].filter((name) => !parameters.has(name));
  const shapeOf = (name: string) => parameters.get(name)?.shape ?? weights.get(name)!;
  return { missing, unexpected, mismatched, renamed: guessRenames(missing, unexpected, shapeOf) };
}

/** @throws CheckpointError listing all differences, and which names look like the same parameter under another name */
export function assertSame(differences: Differences, model: Module, weights: ReadonlyMap<string, Shape>, path: string): void {
  const { missing, unexpected, mismatched, renamed } = differences;
  if (missing.length + unexpected.length + mismatched.length === 0) return;
  const parameters = namedParameters(model);
  const twins = new Map(Object.entries(renamed).map(([from, to]) => [to, from]));
  const lines = [
    ...mismatched.map(({ name, expected, got }) => `${name}: the model has ${describe(expected)}, the checkpoint ${describe(got)}`),
    ...missing.map((name) => {
      const twin = twins.get(name);
      return `${name} ${describe(parameters.get(name)!.shape)} is missing in the checkpoint${twin ? `; renamed from ${twin}?` : ''}`;
    }),
    ...unexpected.map((name) => `${name} ${describe(weights.get(name)!)} is not in the model`),
  ];
  const shown = lines.slice(0, 20);
  if (lines.length > shown.length) shown.push(`and ${lines.length - shown.length} more`);
  const [first] = Object.entries(renamed);
  const rename = first
    ? `, with { rename: { ${first.map((name) => JSON.stringify(name)).join(': ')}${twins.size > 1 ? ', ...' : ''} } }`
    : '';
  const text = `${path} does not fit the model:\n- ${shown.join('\n- ')}\nLoad it with { strict: false } to take over what fits${rename && `, or${rename.slice(1)} to say what is what`}`;
  throw new CheckpointError('ERR_CHECKPOINT_MISMATCH', text, path);
}

/** More names of one kind than this are not compared letter by letter. */
const COMPARED = 64;

/**
 * Parameters of one shape and one last word ("weight") belong together: in their natural order where there are as many of them on both
 * sides, as when all layers have got another prefix, and otherwise by the nearest spelling.
 */
function guessRenames(missing: readonly string[], unexpected: readonly string[], shapeOf: (name: string) => Shape): Record<string, string> {
  const keyOf = (name: string) => `${describe(shapeOf(name))} ${name.slice(name.lastIndexOf('.') + 1)}`;
  const wanted = groupBy(missing, keyOf);
  const guesses: Record<string, string> = {};
  for (const [key, found] of groupBy(unexpected, keyOf)) {
    const names = wanted.get(key) ?? [];
    if (names.length === found.length) {
      const [from, to] = [found, names].map((list) => [...list].sort((a, b) => a.localeCompare(b, 'en', { numeric: true })));
      for (const [i, name] of from!.entries()) guesses[name] = to![i]!;
    } else if (Math.max(names.length, found.length) <= COMPARED) {
      const left = new Set(found);
      for (const name of names) {
        const [twin] = [...left].sort((a, b) => editDistance(a, name) - editDistance(b, name));
        if (twin === undefined) break;
        left.delete(twin);
        guesses[twin] = name;
      }
    }
  }
  return guesses;
}

function groupBy(names: readonly string[], keyOf: (name: string) => string): Map<string, string[]> {
  const groups = new Map<string, string[]>();
  for (const name of names) {
    const group = groups.get(keyOf(name));
    if (group) group.push(name);
    else groups.set(keyOf(name), [name]);
  }
  return groups;
}

function describe(shape: Shape): string {
  return `[${shape.join(', ')}]`;
}

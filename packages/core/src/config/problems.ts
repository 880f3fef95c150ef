import type { ErrorObject } from 'ajv';
import { alternatives, describe, show, tags } from './describe.js';
import { nearest } from './nearest.js';
import type { JsonSchema } from './schema.js';

/** Segments of the path to a value: `['optimizer', 'params', 'betas', '0']`. */
export type ConfigPath = readonly string[];

export interface Problem {
  readonly path: ConfigPath;
  readonly message: string;
}

/** `optimizer.params.betas[0]` */
export function dotted(path: ConfigPath): string {
  return path.map((segment, i) => (/^\d+$/.test(segment) ? `[${segment}]` : i === 0 ? segment : `.${segment}`)).join('');
}

/** Turns what ajv found into one problem per value, in our words. `root` serves to find keys that stand in the wrong place. */
export function explain(errors: readonly ErrorObject[], root: JsonSchema): Problem[] {
  const problems = new Map<string, Problem>();
  for (const error of errors) {
    const problem = one(error, root);
    const key = dotted(problem.path);
    // A value that breaks several rules of its schema is one problem: the message lists all rules anyway.
    if (!problems.has(key)) problems.set(key, problem);
  }
  return [...problems.values()];
}

function one(error: ErrorObject, root: JsonSchema): Problem {
  const schema = error.parentSchema as JsonSchema;
  const path = error.instancePath.split('/').slice(1).map(unescapePointer);
  switch (error.keyword) {
    case 'additionalProperties': {
      const key = String(error.params.additionalProperty);
      return { path: [...path, key], message: unknownKey(key, path, schema, root) };
    }
    case 'required': {
      const key = String(error.params.missingProperty);
      return { path: [...path, key], message: `missing; expected ${expected(schema.properties?.[key] ?? {})}` };
    }
    case 'discriminator': {
      const tag = String(error.params.tag);
      const value = error.params.tagValue;
      return { path: [...path, tag], message: wrongValue({ ...schema, enum: tags(schema) }, value) };
    }
    default:
      return { path, message: wrongValue(schema, error.data) };
  }
}

function wrongValue(schema: JsonSchema, value: unknown): string {
  if (schema.unsupported !== undefined) return `not supported: ${schema.unsupported}. Remove it`;
  if (value === undefined) return `missing; expected ${expected(schema)}`;
  const choices = (schema.enum ?? []).filter((choice) => typeof choice === 'string');
  if (typeof value === 'string') {
    const refused = Object.entries(schema.refused ?? {}).find(([name]) => name.toLowerCase() === value.toLowerCase());
    if (refused) return `${show(value)} is not supported: ${refused[1]}. Expected ${expected(schema)}`;
    const meant = nearest(value, choices);
    if (meant.length > 0) return `expected ${expected(schema)}, got ${show(value)}; did you mean ${alternatives(meant.map(show))}?`;
  }
  return `expected ${expected(schema)}, got ${show(value)}`;
}

function expected(schema: JsonSchema): string {
  return describe(schema) + (schema.hint === undefined ? '' : ` (${schema.hint})`);
}

function unknownKey(key: string, parent: ConfigPath, schema: JsonSchema, root: JsonSchema): string {
  const siblings = Object.keys(schema.properties ?? {});
  if (nearest(key, siblings).length > 0) return unknownAmong(key, parent, siblings);
  // The same place in another alternative is no help.
  const elsewhere = pathsOf(key, root).filter((path) => dotted(path) !== dotted([...parent, key]));
  if (elsewhere.length > 0) return `unknown key here; it belongs at ${alternatives(elsewhere.map((path) => `"${dotted(path)}"`))}`;
  const supported = siblings.filter((name) => !schema.properties?.[name]?.unsupported);
  return unknownAmong(key, parent, supported);
}

/** What to say of a key that is none of `siblings`. */
export function unknownAmong(key: string, parent: ConfigPath, siblings: readonly string[]): string {
  const meant = nearest(key, siblings);
  if (meant.length > 0) return `unknown key; did you mean ${alternatives(meant.map((name) => `"${dotted([...parent, name])}"`))}?`;
  const where = parent.length === 0 ? 'of a config' : `of "${dotted(parent)}"`;
  return `unknown key; the keys ${where} are ${siblings.join(', ')}`;
}

/** Everywhere in the schema where a supported key of this name stands. */
function pathsOf(key: string, schema: JsonSchema, at: ConfigPath = []): ConfigPath[] {
  const found: ConfigPath[] = [];
  for (const branch of schema.oneOf ?? []) found.push(...pathsOf(key, branch, at));
  for (const [name, inner] of Object.entries(schema.properties ?? {})) {
    if (name === key && inner.unsupported === undefined) found.push([...at, name]);
    found.push(...pathsOf(key, inner, [...at, name]));
  }
  return found.filter((path, i) => found.findIndex((other) => dotted(other) === dotted(path)) === i);
}

const unescapePointer = (segment: string) => segment.replaceAll('~1', '/').replaceAll('~0', '~');

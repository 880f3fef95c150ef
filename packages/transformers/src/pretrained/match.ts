import { type Module, namedParameters, type Shape } from '@deepspeed-ts/core';
import { PretrainedError } from './errors.js';
import type { StoredTensor } from './stored-weights.js';

/** How the weights of a directory and the parameters of a model differ. */
export interface LoadReport {
  /** Parameters that the files lack: they get their initialiser's values. */
  readonly missing: readonly string[];
  /** Tensors of the files that the model has no use for. */
  readonly unexpected: readonly string[];
  /** Parameters whose tensor has another shape: they get their initialiser's values. */
  readonly mismatched: readonly { readonly name: string; readonly expected: Shape; readonly got: Shape; readonly file: string }[];
}

export interface MatchOptions {
  /** Let parameters that the files lack begin with their initialiser's values instead of refusing them. */
  readonly allowMissing?: boolean | undefined;
  /** The same for parameters whose tensor has another shape. */
  readonly ignoreMismatchedSizes?: boolean | undefined;
  /** Refuse files with tensors that the model has no use for. */
  readonly strict?: boolean | undefined;
}

export interface Matched {
  /** By parameter. */
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  readonly report: LoadReport;
}

/** What the head is called. Where it is tied to the embedding, files may have it, or have it alone, or leave it out. */
const HEADS = ['lm_head.weight', 'embed_out.weight'];
/** Of the embedding that the head is tied to. */
const EMBEDDING = /(^|\.)(wte|embed_tokens|embed_in|word_embeddings)\.weight$/;
/** Constants that older versions of the libraries saved with the weights: masks and tables of angles. */
const BUFFERS = /(\.(attn|attention)\.(bias|masked_bias)|rotary_emb\.(inv_freq|cos_cached|sin_cached))$/;

/** Finds the tensor of each parameter, whatever prefix the model was saved with: that of the base model ('transformer.') may be there or not. */
export function matchWeights(model: Module, stored: readonly StoredTensor[]): Matched {
  const parameters = namedParameters(model);
  const tensors = new Map<string, StoredTensor>();
  const unexpected: StoredTensor[] = [];
  const candidates = prefixes([...parameters.keys()]);
  for (const tensor of stored) {
    const name = candidates(tensor.name).find((name) => parameters.has(name) && !tensors.has(name));
    if (name !== undefined) tensors.set(name, tensor);
    else unexpected.push(tensor);
  }
  const embedding = [...parameters.keys()].find((name) => EMBEDDING.test(name));
  const isTied = !HEADS.some((name) => parameters.has(name));
  const heads = isTied ? unexpected.filter(({ name }) => HEADS.includes(name)) : [];
  if (embedding !== undefined && !tensors.has(embedding) && heads[0]) tensors.set(embedding, heads[0]);

  const mismatched = [];
  for (const [name, { shape, file }] of tensors) {
    const expected = parameters.get(name)!.shape;
    if (String(shape) === String(expected)) continue;
    mismatched.push({ name, expected, got: shape, file: file.path });
    tensors.delete(name);
  }
  const wrong = new Set(mismatched.map(({ name }) => name));
  const missing = [...parameters.keys()].filter((name) => !tensors.has(name) && !wrong.has(name));
  const useless = unexpected.filter((tensor) => !heads.includes(tensor) && !BUFFERS.test(tensor.name)).map(({ name }) => name);
  return { tensors, report: { missing, unexpected: useless, mismatched } };
}

/** @throws PretrainedError listing all that is wrong and not allowed */
export function assertMatched({ report }: Matched, path: string, options: MatchOptions): void {
  const { missing, unexpected, mismatched } = report;
  const problems = [
    ...(options.ignoreMismatchedSizes ? [] : mismatched).map(
      ({ name, expected, got, file }) => `${name}: expected shape [${expected.join(', ')}], got [${got.join(', ')}] in ${file}`,
    ),
    ...(options.allowMissing ? [] : missing).map((name) => `${name} is missing`),
    ...(options.strict ? unexpected : []).map((name) => `${name} is not in the model`),
  ];
  if (problems.length === 0) return;
  const shown = problems.slice(0, 20);
  if (problems.length > shown.length) shown.push(`and ${problems.length - shown.length} more`);
  const ways = [
    ...(!options.ignoreMismatchedSizes && mismatched.length > 0 ? ['ignoreMismatchedSizes: true'] : []),
    ...(!options.allowMissing && missing.length > 0 ? ['allowMissing: true'] : []),
  ];
  const hints = ways.length > 0 ? `\n{ ${ways.join(', ')} } lets them begin with new values` : '';
  const also = !options.strict && missing.length > 0 && unexpected.length > 0 ? `\nIts files also have ${list(unexpected)}` : '';
  throw new PretrainedError('ERR_PRETRAINED_MISMATCH', path, `the weights do not fit the model:\n- ${shown.join('\n- ')}${also}${hints}`);
}

/** The names that a parameter may have in a model, of its name in a file: as it is, with the prefix of the base model, or without another's. */
function prefixes(names: readonly string[]): (stored: string) => string[] {
  const bases = new Set(names.filter((name) => !HEADS.includes(name)).map((name) => `${name.slice(0, name.indexOf('.'))}.`));
  return (stored) => [stored, ...[...bases].map((base) => base + stored), ...afterDots(stored)];
}

function afterDots(name: string): string[] {
  const rest = name.slice(name.indexOf('.') + 1);
  return rest === name ? [] : [rest];
}

function list(names: readonly string[]): string {
  return names.length > 5 ? `${names.slice(0, 5).join(', ')} and ${names.length - 5} more` : names.join(', ');
}

import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { DeepSpeedCheckpointError } from './error.js';

/** The files of one checkpoint (section "layout" of docs/design/deepspeed-checkpoints.md). */
export interface LocatedCheckpoint {
  /** The directory of the tag. */
  readonly path: string;
  readonly tag: string;
  /** By rank; of stages 0 to 2 there is one. */
  readonly modelStates: readonly string[];
  /** By rank; none at stage 0, where the optimizer is with the model. */
  readonly optimizerStates: readonly string[];
  /** The folder of a universal checkpoint, with a folder for each parameter. */
  readonly universal: string | undefined;
}

const LATEST = ['latest', 'latest_universal'];
const MODEL = /^(?:zero_pp_rank_(\d+)_)?mp_rank_(\d+)_model_states\.pt$/;
const OPTIMIZER = /^(bf16_|fp16_)?zero_pp_rank_(\d+)_mp_rank_(\d+)_optim_states\.pt$/;

/** Files of layouts that are split along more than data parallelism, and what they tell of. */
const OTHER_LAYOUTS: readonly (readonly [RegExp, string])[] = [
  [/^layer_\d+-model_\d+-model_states\.pt$/, 'pipeline parallelism'],
  [/_?expert_\d+_mp_rank_\d+_model_states\.pt$/, 'mixture of experts'],
  [/^expp_rank_\d+_mp_rank_\d+_optim_states\.pt$/, 'mixture of experts'],
];

/** Finds the files of a checkpoint: `directory` has tags and `latest`, or is a tag's own. */
export function locate(directory: string, wanted?: string): LocatedCheckpoint {
  if (!isDirectory(directory)) throw new DeepSpeedCheckpointError(directory, 'there is no such directory');
  const path = findTag(directory, wanted);
  const names = readdirSync(path).sort();
  for (const [pattern, what] of OTHER_LAYOUTS) {
    const name = names.find((name) => pattern.test(name));
    if (name) throw new DeepSpeedCheckpointError(join(path, name), `checkpoints of ${what} can't be converted yet`);
  }
  const universal = isDirectory(join(path, 'zero')) ? join(path, 'zero') : undefined;
  const modelStates = byRank(path, matches(names, MODEL), (match) => [Number(match[1] ?? 0), Number(match[2])]);
  const optimizerStates = byRank(path, matches(names, OPTIMIZER), (match) => [Number(match[2]), Number(match[3])]);
  if (modelStates.length === 0) throw new DeepSpeedCheckpointError(path, 'there is no *_model_states.pt: not a checkpoint of DeepSpeed');
  return { path, tag: basename(path), modelStates, optimizerStates, universal };
}

function findTag(directory: string, wanted: string | undefined): string {
  if (wanted === undefined && holdsStates(directory)) return directory;
  const pointers = LATEST.map((name) => join(directory, name)).filter((path) => existsSync(path));
  const tag = wanted ?? (pointers[0] && readFileSync(pointers[0], 'utf8').trim());
  const tags = readdirSync(directory).filter((name) => holdsStates(join(directory, name)));
  if (!tag) {
    const there = tags.length > 0 ? `; name one of ${tags.join(', ')} with --tag` : '';
    throw new DeepSpeedCheckpointError(directory, `there is neither 'latest' nor a *_model_states.pt${there}`);
  }
  // A tag is a name, here as in ours.
  if (basename(tag) !== tag || !holdsStates(join(directory, tag))) {
    const from = wanted === undefined ? `, which ${pointers[0]} names` : '';
    const there = tags.length > 0 ? `there are ${tags.join(', ')}` : 'there are none';
    throw new DeepSpeedCheckpointError(directory, `there is no checkpoint '${tag}'${from}; ${there}`);
  }
  return join(directory, tag);
}

function holdsStates(path: string): boolean {
  return isDirectory(path) && readdirSync(path).some((name) => name.endsWith('_model_states.pt'));
}

function matches(names: readonly string[], pattern: RegExp): RegExpMatchArray[] {
  return names.map((name) => name.match(pattern)).filter((match) => match !== null);
}

/** Paths in order of rank. @throws where one is missing in between, or there are two of a rank, or several model-parallel ranks */
function byRank(
  path: string,
  found: RegExpMatchArray[],
  ranksOf: (match: RegExpMatchArray) => readonly [data: number, model: number],
): string[] {
  const paths: string[] = [];
  for (const match of found) {
    const [rank, model] = ranksOf(match);
    const name = match[0]!;
    if (model !== 0) throw new DeepSpeedCheckpointError(join(path, name), "checkpoints of tensor parallelism can't be converted yet");
    if (paths[rank])
      throw new DeepSpeedCheckpointError(
        join(path, name),
        `there is ${basename(paths[rank]!)} too: files of two checkpoints lie in one directory`,
      );
    paths[rank] = join(path, name);
  }
  const missing = Array.from(paths, (found, rank) => (found ? -1 : rank)).find((rank) => rank >= 0);
  if (missing !== undefined) {
    const sibling = basename(paths.at(-1)!).replace(/pp_rank_\d+/, `pp_rank_${missing}`);
    throw new DeepSpeedCheckpointError(join(path, sibling), `is missing: the checkpoint has files up to rank ${paths.length - 1}`);
  }
  return paths;
}

function isDirectory(path: string): boolean {
  return existsSync(path) && statSync(path).isDirectory();
}

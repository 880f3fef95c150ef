import { checkpointBeside } from '../autograd/checkpoint.js';
import { checkpointPolicy } from '../autograd/checkpoint-policy.js';
import { isRecording } from '../autograd/mode.js';
import { Tensor } from '../tensor/tensor.js';

/** What goes from block to block: a tensor, or several by name. */
export type BlockState = Tensor | { readonly [name: string]: Tensor | undefined };

/** Neighbours that run together, and whether they are recomputed in backward. */
interface Segment {
  readonly start: number;
  readonly end: number;
  readonly recompute: boolean;
}

/**
 * Runs `state` through equal blocks, one after the other, as a model does that wants activation checkpointing from a config: which blocks
 * are recomputed, the policy of the run decides (`withCheckpointPolicy`), else `recompute`. What a block gave to the next is freed as soon as
 * that has run, unless backward needs it. Every block gets `beside` too: tensors that all of them share and that want no gradient.
 */
export function throughBlocks<S extends BlockState, Beside extends readonly (Tensor | undefined)[] = []>(
  blocks: readonly { call(state: S, ...beside: Beside): S }[],
  state: S,
  recompute = false,
  ...beside: Beside
): S {
  let now = state;
  for (const { start, end, recompute } of segmentsOf(blocks.length, wanted())) {
    const run = (from: S, others: Beside): S => {
      let inner = from;
      for (const block of blocks.slice(start, end)) inner = advance(from, inner, block.call(inner, ...others));
      return inner;
    };
    now = advance(state, now, recompute ? checkpointed(run, now, beside) : run(now, beside));
  }
  return now;

  function wanted(): boolean {
    return isRecording() && (checkpointPolicy().recompute ?? recompute);
  }
}

/** The next state, and the end of the one before unless the caller owns it. */
function advance<S extends BlockState>(callers: S, before: S, next: S): S {
  const kept = new Set([...tensorsOf(callers), ...tensorsOf(next)]);
  for (const tensor of tensorsOf(before)) if (!kept.has(tensor)) tensor.dispose();
  return next;
}

function segmentsOf(count: number, recompute: boolean): Segment[] {
  const { everyNth = 1, checkpoints } = checkpointPolicy();
  const pieces = recompute && checkpoints ? Math.min(checkpoints, count) : count;
  // As equal as can be, the larger ones first.
  const bounds = Array.from({ length: pieces + 1 }, (_, i) => Math.ceil((i * count) / pieces));
  return Array.from({ length: pieces }, (_, i) => ({
    start: bounds[i]!,
    end: bounds[i + 1]!,
    recompute: recompute && i % everyNth === 0,
  }));
}

/** `checkpoint` over a state of several tensors. */
function checkpointed<S extends BlockState, Beside extends readonly (Tensor | undefined)[]>(
  run: (state: S, beside: Beside) => S,
  state: S,
  beside: Beside,
): S {
  const own = tensorsOf(state);
  const names = namesOf(state);
  let given: string[] | undefined;
  const body = (...tensors: Tensor[]): Tensor[] => {
    const others = tensors.slice(own.length).values();
    const next = run(stateOf(names, tensors), beside.map((tensor) => tensor && others.next().value) as unknown as Beside);
    given = namesOf(next);
    return tensorsOf(next);
  };
  const shared = beside.filter((tensor) => tensor !== undefined);
  const tensors = checkpointBeside(body, own, shared) as Tensor[];
  return stateOf(given, tensors);
}

/** `undefined`: the state is a tensor itself. */
function namesOf(state: BlockState): string[] | undefined {
  return state instanceof Tensor ? undefined : Object.keys(state).filter((name) => state[name] !== undefined);
}

function stateOf<S extends BlockState>(names: readonly string[] | undefined, tensors: readonly Tensor[]): S {
  return (names ? Object.fromEntries(names.map((name, i) => [name, tensors[i]!])) : tensors[0]!) as S;
}

function tensorsOf(state: BlockState): Tensor[] {
  return state instanceof Tensor ? [state] : Object.values(state).filter((tensor) => tensor !== undefined);
}

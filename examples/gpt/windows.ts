import { type HostArray, streamOf, uniforms } from 'deepspeed-ts';

/** Windows of a text and the token that follows each of theirs: both i32 [windows, context]. */
export interface WindowBatch extends Readonly<Record<string, HostArray>> {
  readonly inputIds: HostArray;
  readonly labels: HostArray;
}

export interface Draw {
  readonly seed: number;
  /** Optimizer step. */
  readonly step: number;
  /** Number of the first window among all that the step draws, on all ranks. */
  readonly first: number;
  readonly count: number;
  readonly context: number;
}

/**
 * Random windows. A window depends on seed, step and its number alone: however a step's windows are shared out among ranks
 * and micro-batches, they are the same windows.
 */
export function randomWindows(tokens: Uint16Array, { seed, step, first, count, context }: Draw): WindowBatch {
  // Two draws of 24 bits for each window, since a text may have more than 2^24 tokens.
  const u = uniforms({ seed, step, stream: streamOf('windows') }, 2 * first, 2 * count);
  const places = tokens.length - context;
  return windowsAt(
    tokens,
    Array.from({ length: count }, (_, i) => Math.floor((u[2 * i]! + u[2 * i + 1]! * 2 ** -24) * places)),
    context,
  );
}

/** Most windows of a validation. */
const MOST = 2048;

/**
 * Where the windows of a validation start: evenly spaced from the first token to the last, without a gap where that takes no
 * more than 2048. Their number is a multiple of `ranks`, so that all ranks judge equally many.
 */
export function validationStarts(length: number, context: number, ranks: number): number[] {
  const last = length - context - 1;
  const wanted = Math.min(MOST, Math.ceil((length - 1) / context));
  const count = Math.ceil(wanted / ranks) * ranks;
  return Array.from({ length: count }, (_, i) => (count === 1 ? 0 : Math.round((i * last) / (count - 1))));
}

/** The windows that begin at `starts`. */
export function windowsAt(tokens: Uint16Array, starts: readonly number[], context: number): WindowBatch {
  const shape = [starts.length, context];
  const inputIds = new Int32Array(starts.length * context);
  const labels = new Int32Array(starts.length * context);
  for (const [row, start] of starts.entries()) {
    inputIds.set(tokens.subarray(start, start + context), row * context);
    labels.set(tokens.subarray(start + 1, start + 1 + context), row * context);
  }
  return { inputIds: { data: inputIds, shape }, labels: { data: labels, shape } };
}

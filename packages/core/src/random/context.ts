/**
 * Where random ops draw from: seed and step are set around a forward pass, and each random op takes the next stream number.
 * A recomputed block rewinds to the number it began with and so draws the same bits.
 */
export interface RandomContext {
  /** Whether anything is dropped: false outside `withRandom`, which is how evaluation runs. */
  readonly active: boolean;
  readonly seed: number;
  readonly step: number;
  nextStream: number;
}

let current: RandomContext = { active: false, seed: 0, step: 0, nextStream: 0 };

export function randomContext(): RandomContext {
  return current;
}

/** Runs `body` with random ops keyed by `seed` and `step`, numbered from `nextStream`. */
export function withRandom<T>(context: { seed: number; step: number; nextStream?: number; active?: boolean }, body: () => T): T {
  const outer = current;
  current = { active: true, nextStream: 0, ...context };
  try {
    return body();
  } finally {
    current = outer;
  }
}

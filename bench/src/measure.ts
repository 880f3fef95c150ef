/** Times of one thing, in milliseconds. */
export interface Timing {
  readonly min: number;
  readonly median: number;
}

/** Runs `body` a few times to warm up, then `runs` times. */
export async function time(body: () => void | Promise<void>, { runs = 9, warmup = 2 } = {}): Promise<Timing> {
  for (let i = 0; i < warmup; i++) await body();
  const times: number[] = [];
  for (let i = 0; i < runs; i++) {
    const start = performance.now();
    await body();
    times.push(performance.now() - start);
  }
  times.sort((a, b) => a - b);
  return { min: times[0]!, median: times[times.length >> 1]! };
}

export function geometricMean(values: readonly number[]): number {
  return Math.exp(values.reduce((sum, value) => sum + Math.log(value), 0) / values.length);
}

/** One result: a JSON line for machines, a readable one for people. */
export function report(line: Readonly<Record<string, string | number>>): void {
  if (process.argv.includes('--json')) {
    console.log(JSON.stringify(line));
    return;
  }
  const text = Object.entries(line).map(([key, value]) => `${key} ${typeof value === 'number' ? Number(value.toPrecision(4)) : value}`);
  console.log(text.join('  '));
}

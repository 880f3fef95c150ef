/**
 * Number of single-character insertions, deletions, substitutions and swaps of neighbours between two words
 * (Damerau-Levenshtein distance, restricted form).
 */
export function editDistance(a: string, b: string): number {
  // Three rows of the table: two back (for swaps), previous, current. Cell j is the distance of a[0, i) to b[0, j).
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const substitution = last[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      let best = Math.min(last[j]! + 1, row[j - 1]! + 1, substitution);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) best = Math.min(best, beforeLast[j - 2]! + 1);
      row.push(best);
    }
    beforeLast = last;
    last = row;
  }
  return last[b.length]!;
}

/** `trainBatchSize` and `train-batch-size` are `train_batch_size` in another style, not another word. */
const bare = (word: string) => word.toLowerCase().replace(/[^a-z0-9]/g, '');

/**
 * The candidates a mistyped word most likely meant: all that share the smallest distance, in the order given. Empty when even the
 * nearest differs in more than a third of its letters, for then a guess would mislead.
 */
export function nearest(word: string, candidates: readonly string[]): string[] {
  let best = Number.POSITIVE_INFINITY;
  let found: string[] = [];
  for (const candidate of candidates) {
    const tolerated = Math.min(best, Math.max(1, Math.floor(Math.max(word.length, candidate.length) / 3)));
    // Words whose lengths differ by more have a larger distance; letters alone may be nearer than the words as written.
    if (Math.abs(bare(word).length - bare(candidate).length) > tolerated) continue;
    const distance = Math.min(editDistance(word.toLowerCase(), candidate.toLowerCase()), editDistance(bare(word), bare(candidate)));
    if (distance > tolerated) continue;
    if (distance < best) found = [];
    best = distance;
    found.push(candidate);
  }
  return found;
}

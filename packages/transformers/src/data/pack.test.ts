import fc from 'fast-check';
import { expect, it } from 'vitest';
import { packDocuments } from './pack.js';

/** Best fit, the longest first, by looking at every row. */
function slowly(lengths: readonly number[], capacity: number): number[][] {
  const rows: { room: number; documents: number[]; touched: number }[] = [];
  let time = 0;
  const order = lengths.map((_, i) => i).sort((a, b) => lengths[b]! - lengths[a]! || a - b);
  for (const i of order) {
    const length = lengths[i]!;
    if (length === 0) continue;
    const fitting = rows.filter(({ room }) => room >= length);
    const least = Math.min(...fitting.map(({ room }) => room));
    // Of rows with equal room, the one that came to it last.
    const best = fitting.filter(({ room }) => room === least).sort((a, b) => b.touched - a.touched)[0] ?? {
      room: capacity,
      documents: [],
      touched: 0,
    };
    if (best.documents.length === 0) rows.push(best);
    best.documents.push(i);
    best.room -= length;
    best.touched = ++time;
  }
  return rows.map(({ documents }) => documents);
}

it('packs by best fit, the longest first', () => {
  const cases = fc
    .integer({ min: 1, max: 70 })
    .chain((capacity) => fc.tuple(fc.array(fc.integer({ min: 0, max: capacity }), { maxLength: 60 }), fc.constant(capacity)));
  fc.assert(
    fc.property(cases, ([lengths, capacity]) => {
      expect(packDocuments(lengths, capacity)).toEqual(slowly(lengths, capacity));
    }),
  );
});

it('puts every document into one row, and fills none beyond its capacity', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 512 }), { maxLength: 300 }), (lengths) => {
      const rows = packDocuments(lengths, 512);
      expect(rows.flat().sort((a, b) => a - b)).toEqual(lengths.map((_, i) => i));
      for (const row of rows) expect(row.reduce((sum, i) => sum + lengths[i]!, 0)).toBeLessThanOrEqual(512);
      // Two rows that fit into one would be one.
      const total = lengths.reduce((sum, length) => sum + length, 0);
      expect(rows.length).toBeLessThanOrEqual(Math.max(1, Math.ceil((2 * total) / 512)));
    }),
  );
});

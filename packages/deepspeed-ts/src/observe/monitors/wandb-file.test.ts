import fc from 'fast-check';
import { expect, test } from 'vitest';
import { WandbFile, type WandbRun } from './wandb-file.js';
import { readWandbFile } from './wandb-reader.js';

const name = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 60 }).filter((key) => !['__proto__', '_step'].includes(key));
// Around the size of a block, so that every cut of a record occurs; each is unlike its neighbours.
const long = fc
  .oneof(fc.nat(300), fc.integer({ min: 32_500, max: 32_800 }), fc.nat(100_000))
  .map((length) => Buffer.alloc(length, 'abcdefghijklm').toString());

const run = fc.record({
  id: fc.string({ minLength: 8, maxLength: 8 }),
  project: fc.string({ minLength: 1 }),
  entity: fc.option(fc.string({ minLength: 1 })),
  group: fc.option(fc.string({ minLength: 1 })),
  host: fc.string({ minLength: 1 }),
  started: fc.nat(2 ** 41),
  config: fc.dictionary(name, fc.oneof(fc.boolean(), fc.constant(null), long), { maxKeys: 4, noNullPrototype: true }),
});
const row = fc.record({
  step: fc.maxSafeNat(),
  after: fc.nat(2 ** 31),
  values: fc.dictionary(name, fc.double(), { noNullPrototype: true }),
});

test('a reader that knows nothing of the writer reads back the run, its config, rows and end', () => {
  fc.assert(
    fc.property(run, fc.array(row, { maxLength: 6 }), fc.boolean(), (given: WandbRun, rows, ended) => {
      const file = new WandbFile(given);
      const parts = [file.begin(), ...rows.map(({ step, after, values }) => file.row(step, given.started + after, Object.entries(values)))];
      if (ended) parts.push(file.end(given.started + 5000));
      const read = readWandbFile(Buffer.concat(parts));
      const { entity, group, started, ...same } = given;
      const asRow = ({ step, after, values }: (typeof rows)[number]) => ({
        ...Object.fromEntries(Object.entries(values).map(([key, value]) => [key, Object.is(value, -0) ? 0 : value])),
        _step: step,
        _timestamp: (started + after) / 1000,
        _runtime: after / 1000,
      });
      expect(read).toEqual({
        ...same,
        ...(entity !== null && { entity }),
        ...(group !== null && { group }),
        started: expect.closeTo(started / 1000, 6),
        rows: rows.map(asRow),
        summary: Object.assign({}, ...rows.map(asRow)),
        exitCode: ended ? 0 : undefined,
      });
    }),
    { numRuns: 60 },
  );
});

test('that reader notices a flipped bit anywhere, and a cut that is not between records', () => {
  const file = new WandbFile({ id: 'abc', project: 'p', entity: null, group: null, host: 'h', started: 1, config: {} });
  const parts = [file.begin(), file.row(1, 2, [['loss', 3]]), file.end(4)];
  const bytes = Buffer.concat(parts);
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    const damaged = Uint8Array.from(bytes);
    damaged[bit >> 3]! ^= 1 << (bit & 7);
    expect(() => readWandbFile(damaged), `bit ${bit}`).toThrow();
  }
  expect(() => readWandbFile(bytes.subarray(0, -1))).toThrow();
  expect(readWandbFile(Buffer.concat(parts.slice(0, 2))).exitCode).toBeUndefined();
});

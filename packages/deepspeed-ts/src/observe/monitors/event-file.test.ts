import fc from 'fast-check';
import { expect, test } from 'vitest';
import { crc32c, masked } from './crc32c.js';
import { record, scalarEvent, versionEvent } from './event-file.js';
import { readEventFile } from './event-reader.js';

test('checksums are CRC-32C: the values of RFC 3720 and of the check string', () => {
  expect(crc32c(Buffer.from('123456789'))).toBe(0xe3069283);
  expect(crc32c(new Uint8Array(32))).toBe(0x8a9136aa);
  expect(crc32c(new Uint8Array(32).fill(0xff))).toBe(0x62a8ab43);
  expect(crc32c(Uint8Array.from({ length: 32 }, (_, i) => i))).toBe(0x46dd794e);
});

test('masks stay whole numbers of 32 bits', () => {
  fc.assert(
    fc.property(fc.nat({ max: 0xffffffff }), (crc) => {
      const mask = masked(crc);
      expect(Number.isInteger(mask) && mask >= 0 && mask <= 0xffffffff).toBe(true);
      // Unmasked by the inverse steps.
      const rotated = (mask - 0xa282ead8) >>> 0;
      expect(((rotated >>> 17) | (rotated << 15)) >>> 0).toBe(crc);
    }),
  );
});

test('a reader that knows nothing of the writer reads back times, steps, names and values', () => {
  const events = fc.record({
    time: fc.double({ min: 0, max: 4e9, noNaN: true }),
    step: fc.maxSafeNat(),
    tag: fc.string({ unit: 'grapheme', minLength: 1, maxLength: 300 }),
    value: fc.float({ noNaN: true }),
  });
  fc.assert(
    fc.property(fc.array(events, { maxLength: 5 }), (written) => {
      const file = Buffer.concat([
        record(versionEvent(1.5)),
        ...written.map(({ time, step, tag, value }) => record(scalarEvent(time, step, tag, value))),
      ]);
      const [first, ...rest] = readEventFile(file);
      expect(first).toEqual({ time: 1.5, version: 'brain.Event:2', scalars: [] });
      expect(rest).toEqual(written.map(({ time, step, tag, value }) => ({ time, step, scalars: [{ tag, value }] })));
    }),
  );
});

test('that reader notices a flipped bit anywhere', () => {
  const file = record(scalarEvent(1, 2, 'Train/Samples/lr', 3));
  for (let bit = 0; bit < file.length * 8; bit++) {
    const damaged = Uint8Array.from(file);
    damaged[bit >> 3]! ^= 1 << (bit & 7);
    expect(() => readEventFile(damaged), `bit ${bit}`).toThrow();
  }
});

import { expect, it } from 'vitest';
import { decodeFp8, encodeFp8, fp8Scale } from './fp8-format.js';

it.each([
  [1, 'e4m3', 0x38],
  [-1, 'e4m3', 0xb8],
  [448, 'e4m3', 0x7e],
  [1e9, 'e4m3', 0x7e],
  [2 ** -6, 'e4m3', 0x08],
  [2 ** -9, 'e4m3', 0x01],
  [2 ** -10, 'e4m3', 0x00], // a tie, to even
  [3 * 2 ** -10, 'e4m3', 0x02],
  [1.0625, 'e4m3', 0x38],
  [1.1875, 'e4m3', 0x3a],
  [Number.NaN, 'e4m3', 0x7f],
  [1, 'e5m2', 0x3c],
  [57344, 'e5m2', 0x7b],
  [Number.NEGATIVE_INFINITY, 'e5m2', 0xfb],
  [2 ** -16, 'e5m2', 0x01],
  [1.125, 'e5m2', 0x3c],
  [1.375, 'e5m2', 0x3e],
] as const)('%d in %s is code %i', (value, format, code) => {
  expect(encodeFp8(value, format)).toBe(code);
});

it.each(['e4m3', 'e5m2'] as const)('every finite value of %s keeps its code', (format) => {
  for (let code = 0; code < 256; code++) {
    const value = decodeFp8(code, format);
    if (Number.isFinite(value)) expect(encodeFp8(value, format)).toBe(code);
  }
});

it('a scale is the power of two that just fits', () => {
  expect(fp8Scale(448, 'e4m3', 0, 1)).toBe(1);
  expect(fp8Scale(449, 'e4m3', 0, 1)).toBe(0.5);
  expect(fp8Scale(1, 'e5m2', 1, 1)).toBe(2 ** 14);
  expect(fp8Scale(0, 'e4m3', 0, 8)).toBe(8);
});

import { expect, it } from 'vitest';
import { LineSplitter } from './lines.js';

function split(...chunks: Buffer[]): string[] {
  const lines: string[] = [];
  const splitter = new LineSplitter((line) => lines.push(line));
  for (const chunk of chunks) splitter.push(chunk);
  splitter.end();
  return lines;
}

it('cuts lines the same wherever the bytes are cut, also inside a character', () => {
  const text = Buffer.from('une ligne\n\nµ-batch 😀\r\nlast, without newline');
  const expected = ['une ligne', '', 'µ-batch 😀', 'last, without newline'];
  for (let at = 0; at <= text.length; at++) expect(split(text.subarray(0, at), text.subarray(at))).toEqual(expected);
});

it('delivers an endless line in pieces instead of holding it all', () => {
  const piece = Buffer.alloc(1 << 19, 'a');
  expect(split(piece, piece, piece).map((line) => line.length)).toEqual([1 << 20, 1 << 19]);
});

it('delivers nothing of an empty stream', () => {
  expect(split()).toEqual([]);
});

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { TextStream } from './text-stream.js';

/** A token is a byte: characters of several bytes are several tokens. */
const bytes = { decode: (ids: Iterable<number>) => new TextDecoder().decode(Uint8Array.from(ids)) };

function stream(tokens: Iterable<number>, stop: readonly string[] = [], prompt: readonly number[] = []) {
  const text = new TextStream({ tokenizer: bytes, prompt, stop, skipSpecialTokens: true });
  const pieces: string[] = [];
  for (const token of tokens) {
    text.push(token);
    pieces.push(text.take());
    if (text.stopped) break;
  }
  text.end();
  pieces.push(text.take());
  return { pieces, text: pieces.join(''), stopped: text.stopped };
}

const encode = (text: string) => new TextEncoder().encode(text);
const texts = fc.string({ unit: fc.constantFrom('a', 'b', 'ä', '語', '🙂', '\n'), maxLength: 24 });

describe('text that comes token by token', () => {
  it('arrives in pieces of whole characters', () => {
    expect(stream(encode('aä語🙂')).pieces).toEqual(['a', '', 'ä', '', '', '語', '', '', '', '🙂', '']);
  });

  it('is all of the text in the end, whatever came before it', () => {
    fc.assert(
      fc.property(texts, texts, (prompt, text) => {
        const { pieces, text: whole } = stream(encode(text), [], [...encode(prompt)]);
        expect(whole).toBe(text);
        for (const piece of pieces) expect(bytes.decode(encode(piece))).toBe(piece);
        for (const piece of pieces) expect(piece).not.toContain('\uFFFD');
      }),
    );
  });

  it('ends before the first stop string, of which no part was shown', () => {
    fc.assert(
      fc.property(
        texts,
        fc.array(
          texts.filter((stop) => stop !== ''),
          { minLength: 1, maxLength: 3 },
        ),
        (text, stop) => {
          const places = stop.map((word) => text.indexOf(word)).filter((at) => at >= 0);
          const { text: shown, stopped } = stream(encode(text), stop);
          expect(stopped).toBe(places.length > 0);
          // Of stop strings that overlap, the one that is whole first ends the text.
          const ends = stop.filter((word) => text.includes(word)).map((word) => text.indexOf(word) + word.length);
          const until = text.slice(0, Math.min(...ends));
          const starts = stop.map((word) => until.indexOf(word)).filter((at) => at >= 0);
          expect(shown).toBe(places.length > 0 ? until.slice(0, Math.min(...starts)) : text);
        },
      ),
    );
  });

  it('shows at the end what was held back for a stop string that did not come', () => {
    const { pieces } = stream(encode('xEN'), ['END']);
    expect(pieces).toEqual(['x', '', '', 'EN']);
  });

  it('shows bytes that are no character once it ends', () => {
    expect(stream([...encode('a'), 0xe8]).pieces).toEqual(['a', '', '\uFFFD']);
  });

  it('keeps the space that a decoder leaves out at the beginning of a text only', () => {
    const words = ['one', ' two', ' three'];
    const decode = (ids: Iterable<number>) =>
      [...ids]
        .map((id) => words[id])
        .join('')
        .trimStart();
    const text = new TextStream({ tokenizer: { decode }, prompt: [0], stop: [], skipSpecialTokens: true });
    text.push(1);
    expect(text.take()).toBe(' two');
    text.push(2);
    expect(text.take()).toBe(' three');
  });
});

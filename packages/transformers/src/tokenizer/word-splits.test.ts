import { describe, expect, it } from 'vitest';
import { withWordSplits } from './word-splits.js';

const model = (...tokens: string[]) => ({ type: 'BPE', vocab: Object.fromEntries(tokens.map((token, id) => [token, id])) });
const words = expect.objectContaining({ type: 'Split', behavior: 'Isolated' });

describe('a tokenizer of a whole text at once', () => {
  it('gets it by words, behind what it does to spaces itself', () => {
    const plain = { pre_tokenizer: null, model: model('▁', '▁the', '▁▁', 'he', '<0x0A>') };
    expect(withWordSplits(plain)).toEqual({ ...plain, pre_tokenizer: { type: 'Sequence', pretokenizers: [words] } });
    const metaspace = { type: 'Metaspace', replacement: '▁' };
    const unigram = {
      pre_tokenizer: metaspace,
      model: {
        type: 'Unigram',
        vocab: [
          ['▁', -1],
          ['▁a', -2],
        ],
      },
    };
    expect(withWordSplits(unigram)).toEqual({ ...unigram, pre_tokenizer: { type: 'Sequence', pretokenizers: [metaspace, words] } });
  });

  it('keeps what it has where a token goes on behind a word, where spaces are no tokens, and where it splits already', () => {
    for (const tokenizer of [
      { pre_tokenizer: null, model: model('▁', 'of▁the') },
      { pre_tokenizer: null, model: model('a', 'b') },
      { pre_tokenizer: { type: 'ByteLevel' }, model: model('▁', 'a') },
    ])
      expect(withWordSplits(tokenizer)).toBe(tokenizer);
  });
});

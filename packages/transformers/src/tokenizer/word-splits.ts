type JsonObject = Readonly<Record<string, unknown>>;

const SPACE = '▁';
/** Spaces and what follows them up to the next. */
const WORDS = { type: 'Split', pattern: { Regex: `${SPACE}+[^${SPACE}]*|[^${SPACE}]+` }, behavior: 'Isolated', invert: false };

/**
 * The same tokenizer, given text by words where it is one of SentencePiece's kind, which take a whole text at once: it is encoded many times
 * faster then. Where no token of the vocabulary goes on into the spaces behind a word, which is looked at, ids are the same.
 */
export function withWordSplits(tokenizer: JsonObject): JsonObject {
  const { model, pre_tokenizer: before } = tokenizer as { model?: { vocab?: unknown }; pre_tokenizer?: { type?: string } | null };
  if (before && before.type !== 'Metaspace') return tokenizer;
  const tokens = tokensOf(model?.vocab);
  if (!tokens.includes(SPACE) || tokens.some((token) => /[^▁]▁/.test(token))) return tokenizer;
  return { ...tokenizer, pre_tokenizer: { type: 'Sequence', pretokenizers: [...(before ? [before] : []), WORDS] } };
}

/** Of a vocabulary of ids by token, as of byte pairs, or of pairs of token and score, as of Unigram. */
function tokensOf(vocab: unknown): string[] {
  if (Array.isArray(vocab)) return (vocab as [string, number][]).map(([token]) => token);
  return typeof vocab === 'object' && vocab !== null ? Object.keys(vocab) : [];
}

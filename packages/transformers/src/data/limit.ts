import type { EncodedDocument } from './encode.js';

/** What became of documents on their way into rows. */
export interface DatasetReport {
  /** Records read. */
  records: number;
  /** Cut to maxLength: what was beyond is lost. */
  truncated: number;
  /** Text of more than maxLength tokens that was cut into several documents. */
  split: number;
  /** With nothing to learn from, or nothing left of it within maxLength. */
  leftOut: number;
  /** Tokens of what is trained on, and those of them that are learned. */
  tokens: number;
  learned: number;
}

export const emptyReport = (): DatasetReport => ({ records: 0, truncated: 0, split: 0, leftOut: 0, tokens: 0, learned: 0 });

/**
 * A document in pieces of at most `maxLength` tokens: its beginning, or, where `split`, plain text as documents of their own. What has no
 * token to learn is left out: the first token of a document is never learned, there is nothing before it.
 */
export function limited(document: EncodedDocument, maxLength: number, split: boolean, report: DatasetReport): EncodedDocument[] {
  report.records++;
  const pieces: EncodedDocument[] = [];
  const { length } = document.ids;
  const cut = length > maxLength;
  const several = cut && split && document.divisible;
  if (several) report.split++;
  else if (cut) report.truncated++;
  for (let at = 0; at < (several ? length : Math.min(length, 1)); at += maxLength) {
    const piece = { ...document, ids: document.ids.subarray(at, at + maxLength), learned: document.learned?.subarray(at, at + maxLength) };
    const learned = learnedOf(piece);
    if (learned === 0) continue;
    report.tokens += piece.ids.length;
    report.learned += learned;
    pieces.push(piece);
  }
  if (pieces.length === 0) report.leftOut++;
  return pieces;
}

function learnedOf({ ids, learned }: EncodedDocument): number {
  if (!learned) return Math.max(0, ids.length - 1);
  return learned.subarray(1).reduce((sum, one) => sum + one, 0);
}

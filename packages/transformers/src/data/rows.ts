import { documentPositions } from '../decoder/positions.js';
import type { TokenSample } from './collate.js';
import type { EncodedDocument } from './encode.js';

/** A label that counts for nothing. */
const NONE = -100;

/**
 * Documents as one row: each position should say the next token of its document, where that is to be learned; the last one of a document
 * says nothing, and none sees another's.
 */
export function rowOf(documents: readonly EncodedDocument[]): Required<Pick<TokenSample, 'inputIds' | 'labels'>> & TokenSample {
  const total = documents.reduce((sum, { ids }) => sum + ids.length, 0);
  const inputIds = new Int32Array(total);
  const labels = new Int32Array(total).fill(NONE);
  let at = 0;
  for (const { ids, learned } of documents) {
    inputIds.set(ids, at);
    for (let t = 1; t < ids.length; t++) if (!learned || learned[t] === 1) labels[at + t - 1] = ids[t]!;
    at += ids.length;
  }
  if (documents.length === 1) return { inputIds, labels };
  return {
    inputIds,
    labels,
    positionIds: documentPositions(
      documents.map(({ ids }) => ids.length),
      total,
    ),
  };
}

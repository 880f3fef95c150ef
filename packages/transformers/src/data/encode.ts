import type { ChatMessage, Tokenizer } from '../tokenizer/tokenizer.js';
import { chatPieces } from './chat-pieces.js';
import { DatasetError } from './errors.js';
import type { Row } from './records.js';

/** What encoding asks of a tokenizer. */
export type TextTokenizer = Pick<Tokenizer, 'encode' | 'applyChatTemplate'> & { readonly eosTokenId?: number | undefined };

/** A document as tokens. */
export interface EncodedDocument {
  readonly ids: Int32Array;
  /** 1 for tokens that are to be learned, 0 for those that are only read; `undefined`: all are learned. */
  readonly learned: Uint8Array | undefined;
  /** Plain text: it may be cut into documents of its own. */
  readonly divisible: boolean;
}

export interface EncodeRecordOptions {
  /** Learn answers only: completions, and what the assistant says. Default true. */
  readonly completionOnly?: boolean;
}

/** Text with whether it is to be learned. */
export interface Piece {
  readonly text: string;
  readonly learned: boolean;
}

/**
 * A record as tokens: `text`; `prompt` and `completion`, as text or as messages; or `messages`, through the tokenizer's chat template. The
 * text and the completion end with the token that ends a text. Prompt and completion are encoded apart, as they are when a model answers.
 *
 * @param where - Of the record, for messages.
 * @throws DatasetError where it has none of these, or they are not what they should be
 */
export function encodeRecord(
  row: Row,
  where: string,
  tokenizer: TextTokenizer,
  { completionOnly = true }: EncodeRecordOptions = {},
): EncodedDocument {
  const { messages, prompt, completion, text } = row;
  if (messages !== undefined)
    return join(chatPieces(conversation(messages, 'messages', where), where, tokenizer), tokenizer, completionOnly, false);
  if (prompt !== undefined || completion !== undefined) {
    if (Array.isArray(prompt) && Array.isArray(completion)) {
      const [asked, answered] = [conversation(prompt, 'prompt', where), conversation(completion, 'completion', where)];
      return join(chatPieces([...asked, ...answered], where, tokenizer, asked.length), tokenizer, completionOnly, false);
    }
    const pieces = [
      { text: textOf(prompt, 'prompt', where), learned: false },
      { text: textOf(completion, 'completion', where), learned: true },
    ];
    return join(pieces, tokenizer, completionOnly, true);
  }
  if (text !== undefined) return whole(textOf(text, 'text', where), tokenizer);
  const columns = Object.keys(row);
  throw new DatasetError(
    `${where}: expected a column text, prompt and completion, or messages; got ${columns.length === 0 ? 'none' : columns.join(', ')}`,
  );
}

function whole(text: string, tokenizer: TextTokenizer): EncodedDocument {
  const ids = tokenizer.encode(text);
  const { eosTokenId: end } = tokenizer;
  if (end !== undefined && ids.at(-1) !== end) ids.push(end);
  return { ids: Int32Array.from(ids), learned: undefined, divisible: true };
}

/** @param framed - Begin as the tokenizer begins texts and end with its token for that; a chat template does so itself. */
function join(pieces: readonly Piece[], tokenizer: TextTokenizer, completionOnly: boolean, framed: boolean): EncodedDocument {
  const { eosTokenId: end } = tokenizer;
  const parts = pieces.map(({ text }, i) => {
    const ids = tokenizer.encode(text, { addSpecialTokens: framed && i === 0 });
    // Some tokenizers end every text; a prompt goes on.
    if (framed && i === 0 && end !== undefined && tokenizer.encode('').at(-1) === end) ids.pop();
    if (framed && i === pieces.length - 1 && end !== undefined && ids.at(-1) !== end) ids.push(end);
    return ids;
  });
  const ids = Int32Array.from(parts.flat());
  if (!completionOnly) return { ids, learned: undefined, divisible: false };
  const learned = new Uint8Array(ids.length);
  let at = 0;
  for (const [i, part] of parts.entries()) {
    if (pieces[i]!.learned) learned.fill(1, at, at + part.length);
    at += part.length;
  }
  return { ids, learned, divisible: false };
}

function textOf(value: unknown, column: string, where: string): string {
  if (typeof value === 'string') return value;
  const got = value === undefined ? 'nothing' : value === null ? 'null' : Array.isArray(value) ? 'a list' : `a ${typeof value}`;
  throw new DatasetError(`${where}: expected text in the column ${column}, got ${got}`);
}

function conversation(value: unknown, column: string, where: string): ChatMessage[] {
  const isMessage = (one: unknown): one is ChatMessage =>
    typeof one === 'object' && one !== null && typeof (one as ChatMessage).role === 'string';
  if (Array.isArray(value) && value.length > 0 && value.every(isMessage)) return value;
  throw new DatasetError(`${where}: expected the column ${column} to be a list of messages such as {"role": "user", "content": "..."}`);
}

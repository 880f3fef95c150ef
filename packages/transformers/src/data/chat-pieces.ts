import type { ChatMessage } from '../tokenizer/tokenizer.js';
import type { Piece, TextTokenizer } from './encode.js';
import { DatasetError } from './errors.js';

type Template = Pick<TextTokenizer, 'applyChatTemplate'>;

/**
 * A conversation as its chat template writes it, cut where the assistant's turns begin and end. A turn begins after what makes the model
 * answer, and ends with what ends a turn: both are what the template writes for the conversation up to there. Templates may write a turn
 * otherwise once another follows it, as those do that drop old reasoning; then the turn is looked for in the whole.
 *
 * @param from - Messages before this one are never learned.
 * @throws DatasetError where a turn can't be found in what the template writes
 */
export function chatPieces(messages: readonly ChatMessage[], where: string, tokenizer: Template, from = 0): Piece[] {
  const whole = tokenizer.applyChatTemplate(messages);
  const pieces: Piece[] = [];
  let at = 0;
  const cut = (to: number, learned: boolean) => {
    if (to > at) pieces.push({ text: whole.slice(at, to), learned });
    at = Math.max(at, to);
  };
  for (const [i, message] of messages.entries()) {
    if (message.role !== 'assistant' || i < from) continue;
    const before = tokenizer.applyChatTemplate(messages.slice(0, i), { addGenerationPrompt: true });
    const end = whole.startsWith(before)
      ? endOfTurn(whole, before.length, tokenizer.applyChatTemplate(messages.slice(0, i + 1)), message)
      : undefined;
    if (end === undefined) {
      const way = 'train on all of it with completionOnly: false, or give prompt and completion';
      throw new DatasetError(
        `${where}: the chat template does not write message ${i} the same way in the whole conversation and when it is answered; ${way}`,
      );
    }
    cut(before.length, false);
    cut(end, true);
  }
  cut(whole.length, false);
  return pieces;
}

/** Where the turn ends in the whole: after the token that ends turns, without the blank that follows it. */
function endOfTurn(whole: string, begin: number, until: string, { content }: ChatMessage): number | undefined {
  if (until.length >= begin && whole.startsWith(until)) return begin + whole.slice(begin, until.length).trimEnd().length;
  if (typeof content !== 'string') return undefined;
  const said = content.trim();
  const tail = until.slice(until.lastIndexOf(said) + said.length).trimEnd();
  const found = whole.indexOf(said + tail, begin);
  return found < 0 ? undefined : found + said.length + tail.length;
}

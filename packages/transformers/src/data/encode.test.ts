import { describe, expect, it } from 'vitest';
import type { ChatMessage } from '../tokenizer/tokenizer.js';
import { type EncodedDocument, encodeRecord } from './encode.js';
import { BOS, byteTokenizer, decode, EOS } from './test-tokenizer.js';

const tokenizer = byteTokenizer();
/** What is learned, as text. */
const learned = ({ ids, learned: marks }: EncodedDocument) => decode([...ids].filter((_, i) => !marks || marks[i] === 1));
const user = (content: string): ChatMessage => ({ role: 'user', content });
const assistant = (content: string): ChatMessage => ({ role: 'assistant', content });

describe('a record of', () => {
  it('text begins and ends as texts do, and all of it is learned', () => {
    const document = encodeRecord({ text: 'hi' }, 'here', tokenizer);
    expect([...document.ids]).toEqual([BOS, 104, 105, EOS]);
    expect(document.learned).toBeUndefined();
    expect(document.divisible).toBe(true);
  });

  it('text that ends already is left as it is', () => {
    expect(decode(encodeRecord({ text: 'hi</s>' }, 'here', tokenizer).ids)).toBe('<s>hi</s>');
    expect(decode(encodeRecord({ text: 'hi' }, 'here', byteTokenizer({ eos: false })).ids)).toBe('<s>hi');
  });

  it('prompt and completion has the completion and the end of the text to learn', () => {
    const document = encodeRecord({ prompt: '2+2=', completion: '4' }, 'here', tokenizer);
    expect(decode(document.ids)).toBe('<s>2+2=4</s>');
    expect(learned(document)).toBe('4</s>');
    expect(learned(encodeRecord({ prompt: '2+2=', completion: '4' }, 'here', tokenizer, { completionOnly: false }))).toBe('<s>2+2=4</s>');
  });

  it('prompt and completion as messages has the answers after the prompt to learn', () => {
    const row = { prompt: [user('a'), assistant('b'), user('c')], completion: [assistant('d')] };
    expect(learned(encodeRecord(row, 'here', tokenizer))).toBe('d<|turn|>');
  });

  it('messages has what the assistant says and the end of its turns to learn', () => {
    const document = encodeRecord({ messages: [user('hi'), assistant('hello'), user('bye'), assistant('ciao ')] }, 'here', tokenizer);
    expect(decode(document.ids)).toBe('<s>user: hi<|turn|>\nassistant: hello<|turn|>\nuser: bye<|turn|>\nassistant: ciao<|turn|>\n');
    expect(learned(document)).toBe('hello<|turn|>ciao<|turn|>');
  });

  it('messages whose template drops the reasoning of earlier turns has the turns that are left to learn', () => {
    const template = (messages: readonly ChatMessage[], { addGenerationPrompt }: { addGenerationPrompt?: boolean }) =>
      messages
        .map(
          ({ role, content }, i) => `${role}: ${i === messages.length - 1 && role === 'assistant' ? '(thinks) ' : ''}${content}<|turn|>\n`,
        )
        .join('') + (addGenerationPrompt ? 'assistant: ' : '');
    const document = encodeRecord(
      { messages: [user('hi'), assistant('hello'), user('bye'), assistant('ciao')] },
      'here',
      byteTokenizer({ template }),
    );
    expect(learned(document)).toBe('hello<|turn|>(thinks) ciao<|turn|>');
  });

  it('messages that the template writes in another order is refused', () => {
    const template = (messages: readonly ChatMessage[]) =>
      [...messages]
        .reverse()
        .map(({ content }) => content)
        .join('|');
    expect(() => encodeRecord({ messages: [user('a'), assistant('b')] }, 'x.jsonl:7', byteTokenizer({ template }))).toThrow(
      'x.jsonl:7: the chat template does not write message 1 the same way in the whole conversation and when it is answered; train on all of it with completionOnly: false',
    );
  });

  it.each([
    [{ foo: 1, bar: 2 }, 'expected a column text, prompt and completion, or messages; got foo, bar'],
    [{}, 'expected a column text, prompt and completion, or messages; got none'],
    [{ text: 3 }, 'expected text in the column text, got a number'],
    [{ prompt: 'x' }, 'expected text in the column completion, got nothing'],
    [{ prompt: ['x'], completion: 'y' }, 'expected text in the column prompt, got a list'],
    [{ messages: 'hi' }, 'expected the column messages to be a list of messages such as {"role": "user", "content": "..."}'],
    [{ messages: [] }, 'expected the column messages to be a list of messages'],
  ])('%j is refused with what was expected', (row, message) => {
    expect(() => encodeRecord(row, 'train.jsonl:3', tokenizer)).toThrow(`train.jsonl:3: ${message}`);
  });
});

import type { ChatMessage, ChatTemplateOptions } from '../tokenizer/tokenizer.js';
import type { TextTokenizer } from './encode.js';

/** Bytes, and after them these. */
export const [BOS, EOS, TURN] = [256, 257, 258];
const SPECIAL: Readonly<Record<string, number>> = { '<s>': BOS, '</s>': EOS, '<|turn|>': TURN };

export interface ByteTokenizerOptions {
  readonly eos?: boolean;
  readonly template?: (messages: readonly ChatMessage[], options: ChatTemplateOptions) => string;
}

/** Bytes as tokens, a begin before each text, and a chat template as most models have it. */
export function byteTokenizer({ eos = true, template = plainTemplate }: ByteTokenizerOptions = {}): TextTokenizer {
  return {
    eosTokenId: eos ? EOS : undefined,
    encode(text, { addSpecialTokens = true } = {}) {
      const parts = text.split(/(<s>|<\/s>|<\|turn\|>)/);
      const ids = parts.flatMap((part) => (part in SPECIAL ? [SPECIAL[part]!] : [...Buffer.from(part, 'utf8')]));
      return addSpecialTokens ? [BOS, ...ids] : ids;
    },
    applyChatTemplate: (messages, options = {}) => template(messages, options),
  };
}

export function decode(ids: ArrayLike<number>): string {
  const names = Object.entries(SPECIAL);
  return Array.from(ids, (id) => names.find(([, special]) => special === id)?.[0] ?? String.fromCharCode(id)).join('');
}

function plainTemplate(messages: readonly ChatMessage[], { addGenerationPrompt = false }: ChatTemplateOptions): string {
  const turns = messages.map(({ role, content }) => `${role}: ${String(content).trim()}<|turn|>\n`);
  return `<s>${turns.join('')}${addGenerationPrompt ? 'assistant: ' : ''}`;
}

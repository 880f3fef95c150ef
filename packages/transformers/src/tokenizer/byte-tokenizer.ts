import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

/** Ends a text, fills rows up, and ends what one says in a chat. */
const SPECIAL = ['<|end|>', '<|pad|>', '<|turn|>'] as const;

const CHAT_TEMPLATE = `{% for message in messages %}{{ message.role + ': ' + message.content + '<|turn|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}`;

/** Tokens of {@link writeByteTokenizer}. */
export const BYTE_VOCABULARY = 256 + SPECIAL.length;

/**
 * Writes the files of a tokenizer whose tokens are the 256 bytes, for a model that is trained from nothing: it knows every text, and
 * Hugging Face libraries open it too. Byte b is token b; tokens after them end a text, pad, and end a turn of a chat.
 */
export async function writeByteTokenizer(directory: string): Promise<void> {
  const added = SPECIAL.map((content, i) => ({
    id: 256 + i,
    content,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  }));
  const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true };
  const vocab = Object.fromEntries(Array.from({ length: 256 }, (_, byte) => [symbolOf(byte), byte]));
  const model = { type: 'BPE', dropout: null, unk_token: null, fuse_unk: false, byte_fallback: false, vocab, merges: [] };
  const tokenizer = {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: added,
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: null,
    decoder: byteLevel,
    model,
  };
  const config = { tokenizer_class: 'PreTrainedTokenizerFast', eos_token: SPECIAL[0], pad_token: SPECIAL[1], chat_template: CHAT_TEMPLATE };
  await mkdir(directory, { recursive: true });
  await writeFile(join(directory, 'tokenizer.json'), JSON.stringify(tokenizer));
  await writeFile(join(directory, 'tokenizer_config.json'), `${JSON.stringify(config, null, 2)}\n`);
}

/** Byte-level tokenizers write bytes as characters that can be seen: those of Latin-1 themselves, all others from 256 on. */
function symbolOf(byte: number): string {
  const isSeen = (b: number) => (b >= 33 && b <= 126) || (b >= 161 && b !== 173);
  if (isSeen(byte)) return String.fromCharCode(byte);
  let hidden = 0;
  for (let b = 0; b < byte; b++) if (!isSeen(b)) hidden++;
  return String.fromCharCode(256 + hidden);
}

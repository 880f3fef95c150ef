import { existsSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { modelDirectory } from '../hub/resolve.js';
import type { HubOptions } from '../hub/settings.js';
import { readJsonFile } from '../pretrained/json-file.js';
import { TokenizerError } from './errors.js';
import { FastTokenizer } from './fast-tokenizer.js';
import type { Tokenizer } from './tokenizer.js';

export interface TokenizerOptions extends HubOptions {
  /** The token to pad with, where the tokenizer names none, or another one. */
  readonly padToken?: string;
  readonly paddingSide?: 'left' | 'right';
  readonly modelMaxLength?: number;
}

/** Tokenizers of Hugging Face directories. */
export const AutoTokenizer = {
  /**
   * The tokenizer of a directory that has a tokenizer.json, or of a model on the Hub.
   *
   * @throws TokenizerError where there is none, or it can't be used; PretrainedError, HubError where there is no such directory or model
   */
  async fromPretrained(pathOrId: string, options: TokenizerOptions = {}): Promise<Tokenizer> {
    const path = await modelDirectory(pathOrId, 'tokenizer', options);
    const tokenizer = await readJsonFile(join(path, 'tokenizer.json'));
    if (!tokenizer) throw await noTokenizer(path);
    const stored = (await readJsonFile(join(path, 'tokenizer_config.json'))) ?? {};
    const { padToken, paddingSide, modelMaxLength } = options;
    const config = {
      ...stored,
      ...(padToken !== undefined && { pad_token: padToken }),
      ...(paddingSide && { padding_side: paddingSide }),
      ...(modelMaxLength !== undefined && { model_max_length: modelMaxLength }),
    };
    const result = new FastTokenizer({
      tokenizer,
      config,
      specialTokens: await readJsonFile(join(path, 'special_tokens_map.json')),
      chatTemplates: await chatTemplatesOf(path),
      directory: path,
    });
    if (padToken !== undefined && result.padTokenId === undefined)
      throw new TokenizerError('ERR_NO_PAD_TOKEN', `${path}: the vocabulary has no token '${padToken}' to pad with`);
    return result;
  },
};

/** chat_template.jinja, and others by name in additional_chat_templates/. */
async function chatTemplatesOf(path: string): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  const more = join(path, 'additional_chat_templates');
  for (const name of (await readdir(more).catch(() => [])).sort()) {
    if (name.endsWith('.jinja')) found.set(name.slice(0, -'.jinja'.length), await readFile(join(more, name), 'utf8'));
  }
  const main = join(path, 'chat_template.jinja');
  if (existsSync(main)) found.set('default', await readFile(main, 'utf8'));
  return found;
}

async function noTokenizer(path: string): Promise<TokenizerError> {
  const names = await readdir(path);
  const older = names.filter((name) => name === 'tokenizer.model' || name === 'vocab.json' || name === 'spiece.model');
  const way =
    older.length > 0
      ? `; it has ${older.join(', ')} of an older kind, which Python's AutoTokenizer.from_pretrained(...).save_pretrained(...) turns into one`
      : '';
  return new TokenizerError('ERR_TOKENIZER', `${path}: there is no tokenizer.json${way}`);
}

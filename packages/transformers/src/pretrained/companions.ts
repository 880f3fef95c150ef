import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { CompanionFile } from '@deepspeed-ts/core';

/** What belongs to a model beside config.json and weights: how it generates, and its tokenizer of whatever kind. */
const COMPANION =
  /^(generation_config\.json|tokenizer.*\.json|tokenizer\.model|special_tokens_map\.json|added_tokens\.json|vocab\.(json|txt)|merges\.txt|spiece\.model|chat_template\.(jinja|json))$/;
const TEMPLATES = 'additional_chat_templates';

/** Whether a file of this name, in a model's directory, is one of them. */
export function isCompanion(name: string): boolean {
  return COMPANION.test(name) || /^additional_chat_templates\/[\w.-]+\.jinja$/.test(name);
}

/** The files of a model's directory that a saved copy of it should have too. */
export async function companionFiles(directory: string): Promise<CompanionFile[]> {
  const names = await readdir(directory).catch(() => []);
  const templates = (await readdir(join(directory, TEMPLATES)).catch(() => [])).map((name) => `${TEMPLATES}/${name}`);
  return [...names, ...templates]
    .filter(isCompanion)
    .sort()
    .map((name) => ({ name, path: join(directory, name) }));
}

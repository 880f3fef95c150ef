import { readFile } from 'node:fs/promises';
import { PretrainedError } from './errors.js';

export type JsonObject = Readonly<Record<string, unknown>>;

/** A JSON object from a file; `undefined` where there is no such file. @throws PretrainedError where it is something else */
export async function readJsonFile(path: string): Promise<JsonObject | undefined> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new PretrainedError('ERR_PRETRAINED_FILE', path, `can't be read (${(cause as Error).message})`, { cause });
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new PretrainedError('ERR_PRETRAINED_FILE', path, `is not JSON (${(cause as Error).message})`, { cause });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new PretrainedError(
      'ERR_PRETRAINED_FILE',
      path,
      `expected a JSON object, got ${Array.isArray(value) ? 'a list' : String(value)}`,
    );
  return value as JsonObject;
}

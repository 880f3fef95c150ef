import { stat } from 'node:fs/promises';
import { PretrainedError } from '../pretrained/errors.js';
import { HubError } from './errors.js';
import type { HubOptions } from './settings.js';
import { hubSnapshot, type Wanted } from './snapshot.js';

/** `name` or `owner/name`, as the Hub allows them. */
const ID = /^[A-Za-z0-9][\w.-]*(\/[A-Za-z0-9][\w.-]*)?$/;

/**
 * The directory that is meant: a path to one, or the id of a model on the Hub.
 *
 * @throws PretrainedError where it is neither; HubError where the Hub does not give it
 */
export async function modelDirectory(pathOrId: string, wanted: Wanted, options: HubOptions): Promise<string> {
  const found = await stat(pathOrId).catch(() => undefined);
  if (found?.isDirectory()) return pathOrId;
  if (found) throw new PretrainedError('ERR_PRETRAINED_MISSING', pathOrId, 'expected a model directory, got a file');
  if (!ID.test(pathOrId)) {
    const text = "there is no such directory, and it can't be the id of a model on the Hub, which is 'owner/name'";
    throw new PretrainedError('ERR_PRETRAINED_MISSING', pathOrId, text);
  }
  try {
    return await hubSnapshot(pathOrId, wanted, options);
  } catch (error) {
    if (!(error instanceof HubError) || error.code === 'ERR_HUB_DOWNLOAD') throw error;
    // It may have been meant as a path.
    throw new HubError(error.code, pathOrId, `there is no such directory, so it was looked for on the Hub. ${error.message}`, {
      cause: error,
    });
  }
}

import { join } from 'node:path';
import { isCompanion } from '../pretrained/companions.js';
import { readJsonFile } from '../pretrained/json-file.js';
import { shardsIn, weightsIn } from '../pretrained/stored-weights.js';
import { CachedRepo } from './cached-repo.js';
import { download, messageOf } from './download.js';
import { HubError } from './errors.js';
import { accessToken, cacheDirectory, endpoint, type HubOptions, isOffline } from './settings.js';

/** What of a repository is wanted: all that a model needs, or only its tokenizer. */
export type Wanted = 'model' | 'tokenizer';

type HubLibrary = typeof import('@huggingface/hub');

/** A file of a commit. */
interface RemoteFile {
  /** Of its contents: what names the blob. */
  readonly hash: string;
  readonly size: number;
}

/** A commit of a repository on the Hub. */
interface Commit {
  readonly hash: string;
  readonly files: ReadonlyMap<string, RemoteFile>;
}

/** The Hub, asked about one repository. */
interface Source {
  readonly hub: HubLibrary;
  readonly id: string;
  readonly asked: { readonly hubUrl: string; readonly accessToken?: string };
}

/**
 * The directory of a model on the Hub, in the cache: what is missing there is downloaded, and of the repository no more than is wanted. The Hub
 * is asked which commit a branch is; where it can't be reached, the commit that it was the last time serves.
 *
 * @throws HubError
 */
export async function hubSnapshot(id: string, wanted: Wanted, options: HubOptions): Promise<string> {
  const { revision = 'main' } = options;
  const cache = cacheDirectory(options);
  const repo = new CachedRepo(cache, id);
  const cached = await repo.snapshotOf(revision);
  if (isOffline(options)) {
    if (cached) return cached;
    const text = `revision '${revision}' is not in the cache ${cache}, and the Hub is not asked (HF_HUB_OFFLINE or localFilesOnly); download it once while online`;
    throw new HubError('ERR_HUB_OFFLINE', id, text);
  }
  const token = await accessToken(options);
  const source = { hub: await import('@huggingface/hub'), id, asked: { hubUrl: endpoint(), ...(token && { accessToken: token }) } };
  let commit: Commit;
  try {
    commit = await commitOf(source, revision);
  } catch (error) {
    if (!cached || !(error instanceof HubError) || error.code !== 'ERR_HUB_UNREACHABLE') throw error;
    console.warn(`${error.message}. What was downloaded before is used: ${cached}`);
    return cached;
  }
  const get = (files: readonly string[]) => fetchFiles(source, repo, commit, files, options);
  const names = [...commit.files.keys()];
  await get(names.filter((name) => name === 'config.json' || isCompanion(name)));
  if (wanted === 'model') {
    const weights = weightsIn(names);
    if (weights) await get([weights]);
    if (weights?.endsWith('.index.json')) {
      const path = join(repo.snapshot(commit.hash), weights);
      await get(shardsIn(path, (await readJsonFile(path)) ?? {}));
    }
  }
  await repo.setRef(revision, commit.hash);
  return repo.snapshot(commit.hash);
}

async function commitOf({ hub, id, asked }: Source, revision: string): Promise<Commit> {
  try {
    const { sha } = await hub.modelInfo({ ...asked, name: id, revision, additionalFields: ['sha'] });
    const files = new Map<string, RemoteFile>();
    for await (const { type, path, size, oid, lfs } of hub.listFiles({ ...asked, repo: id, revision: sha, recursive: true })) {
      if (type === 'file') files.set(path, { hash: lfs?.oid ?? oid!, size: lfs?.size ?? size });
    }
    return { hash: sha, files };
  } catch (error) {
    throw asHubError(error, id, revision, asked);
  }
}

async function fetchFiles(source: Source, repo: CachedRepo, commit: Commit, names: readonly string[], options: HubOptions): Promise<void> {
  for (const file of names) {
    if (await repo.has(commit.hash, file)) continue;
    const remote = commit.files.get(file);
    if (!remote) throw new HubError('ERR_HUB_NOT_FOUND', source.id, `its index of weights names ${file}, which it does not have`);
    const { hash, size } = remote;
    await download({
      repo: source.id,
      file,
      path: repo.blob(hash),
      size,
      stream: (start) => open(source, commit, file, size, start),
      onProgress: (loaded) => options.onProgress?.({ repo: source.id, file, loaded, total: size }),
    });
    await repo.link(commit.hash, file, hash);
  }
}

async function open(
  { hub, id, asked }: Source,
  commit: Commit,
  file: string,
  size: number,
  start: number,
): Promise<AsyncIterable<Uint8Array>> {
  const { HubApiError } = hub;
  try {
    const blob = await hub.downloadFile({ ...asked, repo: id, revision: commit.hash, path: file });
    if (!blob) throw new HubError('ERR_HUB_NOT_FOUND', id, `${file} is listed, but not there`);
    if (blob.size !== size)
      throw new HubError('ERR_HUB_DOWNLOAD', id, `${file}: the Hub lists ${size} bytes, and offers ${blob.size}; try again later`);
    return (start === 0 ? blob : blob.slice(start)).stream() as unknown as AsyncIterable<Uint8Array>;
  } catch (error) {
    if (error instanceof HubApiError && error.statusCode < 500) throw asHubError(error, id, commit.hash, asked);
    throw error;
  }
}

/** What an answer of the Hub, or none, means to the one who wants the model. */
function asHubError(error: unknown, id: string, revision: string, { hubUrl, accessToken }: Source['asked']): HubError {
  if (error instanceof HubError) return error;
  const status = (error as { statusCode?: number }).statusCode;
  const said = messageOf(error);
  if (status === 404) {
    return new HubError('ERR_HUB_NOT_FOUND', id, `${hubUrl} has no such model, or it has no revision '${revision}' (${said})`, {
      cause: error,
    });
  }
  if (status === 401 || status === 403) {
    const way = accessToken
      ? `the token does not open it: accept its terms at ${hubUrl}/${id}, or use a token that may read it`
      : `set HF_TOKEN, or give a token, of an account that may read it (see ${hubUrl}/${id}); a name that does not exist is answered the same way`;
    return new HubError('ERR_HUB_ACCESS', id, `it is private, gated or not there: ${way} (${said})`, { cause: error });
  }
  if (error instanceof TypeError && /access token/i.test(said)) return new HubError('ERR_HUB_ACCESS', id, said, { cause: error });
  const text = `${hubUrl} can't be reached (${said}); with HF_HUB_OFFLINE=1 only what was downloaded before is used`;
  return new HubError('ERR_HUB_UNREACHABLE', id, text, { cause: error });
}

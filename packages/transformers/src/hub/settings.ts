import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';

/** How to get what a path that is no directory names: the id of a model on the Hub. */
export interface HubOptions {
  /** A branch, a tag or a commit. Default 'main'. */
  readonly revision?: string | undefined;
  /** Default: HF_TOKEN, else what `hf auth login` has stored. */
  readonly token?: string | undefined;
  /** Where downloads are kept. Default: HF_HUB_CACHE, else `hub` in HF_HOME, else ~/.cache/huggingface/hub: shared with Python. */
  readonly cacheDir?: string | undefined;
  /** Take what was downloaded before and ask nobody. Default: HF_HUB_OFFLINE. */
  readonly localFilesOnly?: boolean | undefined;
  /** Told how far the download of each file is. */
  readonly onProgress?: ((progress: DownloadProgress) => void) | undefined;
}

export interface DownloadProgress {
  readonly repo: string;
  readonly file: string;
  /** Bytes of the file that are there, and those that it has. */
  readonly loaded: number;
  readonly total: number;
}

/** The Hub, or what stands in for it. */
export function endpoint(): string {
  return (process.env.HF_ENDPOINT || 'https://huggingface.co').replace(/\/+$/, '');
}

export function isOffline({ localFilesOnly }: HubOptions): boolean {
  const says = (name: string) => /^(1|true|yes|on)$/i.test(process.env[name] ?? '');
  return localFilesOnly ?? (says('HF_HUB_OFFLINE') || says('TRANSFORMERS_OFFLINE'));
}

export function cacheDirectory({ cacheDir }: HubOptions): string {
  const { HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE } = process.env;
  return cacheDir || HF_HUB_CACHE || HUGGINGFACE_HUB_CACHE || join(home(), 'hub');
}

export async function accessToken({ token }: HubOptions): Promise<string | undefined> {
  const given = token ?? (process.env.HF_TOKEN || undefined);
  if (given !== undefined) return given.trim() || undefined;
  const stored = await readFile(process.env.HF_TOKEN_PATH || join(home(), 'token'), 'utf8').catch(() => '');
  return stored.trim() || undefined;
}

function home(): string {
  return process.env.HF_HOME || join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'huggingface');
}

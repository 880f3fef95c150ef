import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { afterAll } from 'vitest';

export const COMMIT = 'c'.repeat(40);

export interface Repository {
  readonly commit: string;
  readonly files: Map<string, Buffer>;
  /** Only with this token. */
  readonly token?: string;
}

/** How the server misbehaves, for requests of a file's contents. */
export interface Mischief {
  /** The connection breaks after so many bytes of an answer, so many times. */
  breakAfter?: number;
  breaks?: number;
  /** The length that listings say, of this file. */
  listed?: { readonly file: string; readonly size: number };
}

/** A server on loopback that answers as the Hub does: model info, the tree of a commit, and files with ranges, ETag and commit. */
export class FakeHub {
  readonly repositories = new Map<string, Repository>();
  /** Paths and ranges, in order. */
  readonly requests: string[] = [];
  mischief: Mischief = {};
  readonly #server = createServer((request, response) => this.#answer(request, response));

  static async start(): Promise<FakeHub> {
    const hub = new FakeHub();
    hub.#server.listen(0, '127.0.0.1');
    await once(hub.#server, 'listening');
    afterAll(() => hub.stop());
    return hub;
  }

  get url(): string {
    const { port } = this.#server.address() as { port: number };
    return `http://127.0.0.1:${port}`;
  }

  stop(): void {
    this.#server.closeAllConnections();
    this.#server.close();
  }

  add(id: string, files: Readonly<Record<string, string | Buffer>>, commit = COMMIT, token?: string): void {
    const contents = new Map(Object.entries(files).map(([name, content]) => [name, Buffer.from(content)]));
    this.repositories.set(id, { commit, files: contents, ...(token && { token }) });
  }

  /** Requests for the contents of files since the last call. */
  takeDownloads(): string[] {
    return this.requests
      .splice(0)
      .filter((path) => path.includes('/resolve/') && !path.endsWith('bytes=0-0'))
      .map((path) => path.replace(/.*\/resolve\/[^/]+\//, ''));
  }

  #answer(request: IncomingMessage, response: ServerResponse) {
    const url = new URL(request.url!, this.url);
    const { range } = request.headers;
    this.requests.push(`${url.pathname}${range ? ` ${range}` : ''}`);
    const [, id = '', what = '', rest = ''] =
      /^\/api\/models\/(.+?)\/(revision|tree)\/(.+)$/.exec(url.pathname) ?? /^\/(.+?)\/(resolve)\/(.+)$/.exec(url.pathname) ?? [];
    const repository = this.repositories.get(id);
    if (!repository) return fail(response, 404, 'Repository not found');
    if (repository.token && request.headers.authorization !== `Bearer ${repository.token}`)
      return fail(response, 401, 'Access to this model is restricted');
    if (what === 'revision') {
      if (!['main', repository.commit].includes(rest)) return fail(response, 404, `Invalid rev id: ${rest}`);
      return json(response, {
        _id: '1',
        id,
        sha: repository.commit,
        private: false,
        gated: false,
        likes: 0,
        downloads: 0,
        lastModified: 0,
      });
    }
    if (what === 'tree')
      return json(
        response,
        [...repository.files].map(([path, content]) => this.#entry(path, content)),
      );
    const file = rest.slice(rest.indexOf('/') + 1);
    const content = repository.files.get(file);
    if (!content) return fail(response, 404, 'Entry not found', { 'x-error-code': 'EntryNotFound' });
    this.#send(response, repository.commit, content, range);
  }

  #entry(path: string, content: Buffer) {
    const { listed } = this.mischief;
    const size = listed?.file === path ? listed.size : content.length;
    const oid = hashOf('sha1', content);
    // As the Hub keeps files of weights.
    const lfs = /\.(safetensors|bin)$/.test(path) ? { lfs: { oid: hashOf('sha256', content), size, pointerSize: 130 } } : {};
    return { type: 'file', path, size, oid, ...lfs };
  }

  #send(response: ServerResponse, commit: string, content: Buffer, range: string | undefined): void {
    const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(range ?? '') ?? [];
    const [start, end] = from ? [Number(from), Math.min(Number(to) + 1, content.length)] : [0, content.length];
    const part = content.subarray(start, end);
    response.writeHead(from ? 206 : 200, {
      'content-type': 'application/octet-stream',
      'content-length': part.length,
      'accept-ranges': 'bytes',
      etag: `"${hashOf('sha1', content)}"`,
      'x-repo-commit': commit,
      ...(from && { 'content-range': `bytes ${start}-${end - 1}/${content.length}` }),
    });
    const { breakAfter, breaks = 0 } = this.mischief;
    if (breakAfter === undefined || breaks === 0 || part.length <= breakAfter) {
      response.end(part);
      return;
    }
    this.mischief.breaks = breaks - 1;
    response.write(part.subarray(0, breakAfter), () => setTimeout(() => response.destroy(), 20));
  }
}

export function hashOf(algorithm: string, content: Buffer): string {
  return createHash(algorithm).update(content).digest('hex');
}

function json(response: ServerResponse, value: unknown): void {
  response.writeHead(200, { 'content-type': 'application/json' });
  response.end(JSON.stringify(value));
}

function fail(response: ServerResponse, status: number, error: string, headers: Readonly<Record<string, string>> = {}): void {
  response.writeHead(status, { 'content-type': 'application/json', ...headers });
  response.end(JSON.stringify({ error }));
}

import { readdirSync, statSync } from 'node:fs';
import { createServer } from 'node:net';
import { basename, dirname, extname, join, resolve } from 'node:path';
import { LaunchError } from './errors.js';
import { nearest } from './nearest.js';

/**
 * The absolute path of a script that exists.
 * @throws LaunchError SCRIPT_NOT_FOUND, with the nearest file name when one is close.
 */
export function findScript(script: string, cwd: string): string {
  const path = resolve(cwd, script);
  if (extname(path) === '.py') {
    throw new LaunchError('SCRIPT_NOT_FOUND', `${script} is a Python script; this launcher runs .ts and .js scripts on Node.js.`);
  }
  const stat = statSync(path, { throwIfNoEntry: false });
  if (stat?.isFile()) return path;
  if (stat?.isDirectory()) throw new LaunchError('SCRIPT_NOT_FOUND', `${script} is a directory: expected the path of a .ts or .js file.`);

  let files: string[];
  try {
    files = readdirSync(dirname(path));
  } catch {
    throw new LaunchError('SCRIPT_NOT_FOUND', `No such script: ${path} (the folder ${dirname(path)} does not exist).`);
  }
  const name = basename(path);
  const stem = (file: string) => basename(file, extname(file));
  const close = files.find((file) => stem(file) === stem(name) && /\.[cm]?[jt]sx?$/.test(file)) ?? nearest(name, files);
  const hint = close === null ? '' : ` Did you mean ${join(dirname(script), close)}?`;
  throw new LaunchError('SCRIPT_NOT_FOUND', `No such script: ${path}.${hint}`);
}

/** Binds and lets go again: the port bound, or the system's error. */
function probe(host: string, port: number): Promise<number> {
  return new Promise((done, fail) => {
    const server = createServer();
    server.once('error', fail);
    server.listen({ host, port, exclusive: true }, () => {
      const address = server.address();
      server.close(() => done(typeof address === 'object' && address !== null ? address.port : port));
    });
  });
}

/**
 * A port on which rank 0 can listen: the one asked for, or any free one. It is free now; another process may still take it before rank 0
 * does, which rank 0 then reports.
 * @throws LaunchError PORT_IN_USE, or BAD_ADDRESS when `host` is not an address of this machine.
 */
export async function findPort(host: string, port: number | undefined): Promise<number> {
  try {
    return await probe(host, port ?? 0);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'EADDRINUSE') {
      throw new LaunchError(
        'PORT_IN_USE',
        `Port ${port} on ${host} is in use, so the ranks could not meet there; another job may be running. ` +
          'Give another one with --master_port, or leave the flag out to use any free port.',
      );
    }
    if (code === 'EACCES') {
      throw new LaunchError(
        'PORT_IN_USE',
        `Port ${port} on ${host} needs privileges: choose one from 1024 to 65535, or leave --master_port out.`,
      );
    }
    throw new LaunchError(
      'BAD_ADDRESS',
      `--master_addr ${host} is not an address of this machine (${code ?? message}). All ranks run here: leave it out to use 127.0.0.1.`,
    );
  }
}

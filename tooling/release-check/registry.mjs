import { spawn } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { capture, root } from '../run.mjs';

/** Starts verdaccio on a free port of 127.0.0.1 with its storage in `dir`; third-party packages come through from npm's own registry. */
export async function startRegistry(dir) {
  mkdirSync(dir, { recursive: true });
  const port = await freePort();
  const url = `http://127.0.0.1:${port}/`;
  const config = join(dir, 'config.json'); // verdaccio reads YAML, of which JSON is a subset
  writeFileSync(config, JSON.stringify(settings(dir)));

  const child = spawn(process.execPath, [join(root, 'node_modules/verdaccio/bin/verdaccio'), '--config', config, '--listen', url], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let log = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (text) => (log += text));
  const stop = () => child.kill('SIGKILL');
  process.once('exit', stop);
  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(130)); // `exit` handlers stop the child

  for (let attempt = 0; attempt < 150; attempt++) {
    if (child.exitCode !== null) break;
    const answer = await fetch(`${url}-/ping`).catch(() => undefined);
    if (answer?.ok) return { url, stop };
    await sleep(200);
  }
  stop();
  throw new Error(`verdaccio did not start on ${url}:\n${log}`);
}

function settings(dir) {
  const ours = { access: '$all', publish: '$anonymous', unpublish: '$anonymous' };
  return {
    storage: join(dir, 'storage'),
    uplinks: { npm: { url: capture('npm', ['config', 'get', 'registry']).trim(), timeout: '60s', maxage: '30m' } },
    packages: { '@deepspeed-ts/*': ours, 'deepspeed-ts': ours, '**': { access: '$all', proxy: 'npm' } },
    auth: { htpasswd: { file: join(dir, 'htpasswd'), max_users: -1 } },
    log: { type: 'stdout', format: 'pretty', level: 'warn' },
    max_body_size: '200mb',
  };
}

function freePort() {
  return new Promise((resolve, reject) => {
    const server = createServer().once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

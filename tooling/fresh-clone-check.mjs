// What a visitor meets: clones HEAD into an empty folder with an empty home and runs the README's commands there, each twice, with
// a clock. Usage: npm run fresh-clone-check [-- demo test]
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { root, run } from './run.mjs';

/** Longest first run, in minutes, on two cores; `test` compiles the CUDA kernels where there is a compiler for them. */
const limits = { demo: 4, test: 20 };

const chosen = process.argv.length > 2 ? process.argv.slice(2) : Object.keys(limits);
const scratch = mkdtempSync(join(tmpdir(), 'deepspeed-ts-clone-'));
const results = [];
try {
  for (const name of chosen) {
    const home = join(scratch, `home-${name}`);
    const clone = join(scratch, name);
    mkdirSync(home);
    run('git', ['clone', '--quiet', root, clone]);
    for (const attempt of ['first', 'second']) results.push(timed(name, attempt, clone, home));
  }
} finally {
  rmSync(scratch, { recursive: true, force: true });
}

console.log('\ncommand        run     seconds  status');
for (const { name, attempt, seconds, status } of results) {
  console.log(`npm run ${name.padEnd(6)} ${attempt.padEnd(6)} ${seconds.toFixed(1).padStart(8)}  ${status}`);
}
const bad = results.filter(({ name, seconds, status }) => status !== 0 || seconds > 60 * (limits[name] ?? Number.POSITIVE_INFINITY));
if (bad.length > 0) console.error(`Failed or over its limit: ${bad.map(({ name, attempt }) => `${name} (${attempt} run)`).join(', ')}`);
process.exitCode = bad.length > 0 ? 1 : 0;

function timed(name, attempt, cwd, home) {
  console.log(`\n== ${attempt} npm run ${name}`);
  const start = performance.now();
  const { status, signal } = spawnSync('npm', ['run', name], {
    cwd,
    env: visitorEnvironment(home),
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  return { name, attempt, seconds: (performance.now() - start) / 1000, status: status ?? signal };
}

/** Only what any shell has: the path without this workspace's tools, and how to reach the network. */
function visitorEnvironment(home) {
  const path = process.env.PATH.split(delimiter).filter((folder) => !folder.startsWith(root) && !folder.includes('node_modules'));
  const network = Object.entries(process.env).filter(([name]) => /^(NODE_EXTRA_CA_CERTS|SSL_CERT_\w+|(https?|no)_proxy)$/i.test(name));
  return { ...Object.fromEntries(network), HOME: home, PATH: path.join(delimiter), LANG: 'C.UTF-8' };
}

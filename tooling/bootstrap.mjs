// Makes a checkout ready on a machine that has Node and npm: installs the locked dependencies, then runs the turbo tasks given as
// arguments (`build`, `build:native`). What is up to date is skipped, so every script can start with this.
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { pnpm, pnpmPath } from './pnpm.mjs';
import { root, run } from './run.mjs';

const [major, minor] = process.versions.node.split('.').map(Number);
if (major < 20 || (major === 20 && minor < 17)) {
  console.error(`deepspeed-ts needs Node 20.17 or newer, this is ${process.version}. Install a newer Node and try again.`);
  process.exit(1);
}

try {
  install();
  const tasks = process.argv.slice(2);
  if (tasks.length > 0) build(tasks);
} catch (error) {
  console.error(error.message);
  process.exit(1);
}

function install() {
  const stamp = `${root}/node_modules/.installed-lock`;
  const wanted = createHash('sha256')
    .update(readFileSync(`${root}/pnpm-lock.yaml`))
    .update(process.version)
    .digest('hex');
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === wanted) return;
  pnpm(['install', '--frozen-lockfile', '--reporter=append-only', '--loglevel=warn']);
  writeFileSync(stamp, wanted);
}

function build(tasks) {
  const env = {
    CMAKE_BUILD_PARALLEL_LEVEL: String(availableParallelism()),
    TURBO_TELEMETRY_DISABLED: '1',
    TURBO_NO_UPDATE_NOTIFIER: '1',
    ...process.env,
    // turbo calls the package manager by name.
    PATH: [join(dirname(pnpmPath()), '../../.bin'), process.env.PATH].join(delimiter),
  };
  run(process.execPath, [`${root}/node_modules/turbo/bin/turbo`, 'run', ...tasks, '--output-logs=new-only'], { env });
}

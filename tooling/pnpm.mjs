// The pinned pnpm without a global install: `npm install`ed once under .tools/ (git-ignored) and called from there.
// As a command: `node tooling/pnpm.mjs <pnpm arguments>`.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { root, run } from './run.mjs';

/** Path of the JavaScript file that is pnpm, in the version that package.json's `packageManager` names. */
export function pnpmPath() {
  const { packageManager } = JSON.parse(readFileSync(`${root}/package.json`, 'utf8'));
  const folder = `${root}/.tools/${packageManager}`;
  const path = `${folder}/node_modules/pnpm/bin/pnpm.cjs`;
  if (!existsSync(path)) {
    console.log(`Installing ${packageManager} into .tools/ ...`);
    mkdirSync(folder, { recursive: true });
    run('npm', ['install', '--prefix', folder, '--no-save', '--no-audit', '--no-fund', '--loglevel=error', packageManager]);
  }
  return path;
}

export function pnpm(args, options) {
  run(process.execPath, [pnpmPath(), ...args], options);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { status, signal } = spawnSync(process.execPath, [pnpmPath(), ...process.argv.slice(2)], { stdio: 'inherit' });
  process.exit(status ?? (signal ? 1 : 0));
}

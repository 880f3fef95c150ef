// Publishes every package to a registry of our own on loopback and uses each as a stranger would: in an empty folder, from the
// registry, with install scripts off. Ends by showing what a user sees whose platform has no binary. Nothing outlives the run.
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { copyNativeBinaries } from './native-binaries.mjs';
import { pnpmPath } from './pnpm.mjs';
import { isPlatformPackage, publishedPackages } from './published.mjs';
import { cases } from './release-check/cases.mjs';
import { startRegistry } from './release-check/registry.mjs';
import { capture, root } from './run.mjs';

const scratch = mkdtempSync(join(tmpdir(), 'deepspeed-ts-release-'));
let registry;
try {
  await main();
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
} finally {
  registry?.stop();
  rmSync(scratch, { recursive: true, force: true });
}

async function main() {
  const filled = copyNativeBinaries();
  registry = await startRegistry(join(scratch, 'registry'));
  const env = userEnvironment(registry.url);
  const packages = publishedPackages().filter((entry) => !isPlatformPackage(entry) || filled.includes(entry.name));
  for (const { name, dir, manifest } of packages) {
    // Provenance can only be signed by a CI provider.
    const args = ['publish', '--no-git-checks', '--provenance=false', '--registry', registry.url];
    capture(process.execPath, [pnpmPath(), ...args], { cwd: join(root, dir), env });
    console.log(`published ${name}@${manifest.version}`);
  }

  const covered = new Set(cases.flatMap(({ install }) => install));
  const forgotten = packages.filter((entry) => !isPlatformPackage(entry) && !covered.has(entry.name)).map(({ name }) => name);
  if (forgotten.length > 0) throw new Error(`No case in tooling/release-check/cases.mjs installs ${forgotten.join(', ')}.`);

  const failed = cases.filter((example, index) => !passes(example, join(scratch, `app-${index}`), env));
  console.log(`\n${cases.length - failed.length} of ${cases.length} installs work`);
  if (failed.length > 0) throw new Error(`Failed: ${failed.map(({ title }) => title).join('; ')}`);
}

/** Installs one case into an empty folder and runs its few lines there. */
function passes({ title, install, remove = [], script, command = [process.execPath], expect, fails = false }, dir, env) {
  console.log(`\n== ${title}: npm i --ignore-scripts ${install.join(' ')}`);
  mkdirSync(dir);
  writeFileSync(join(dir, 'package.json'), '{ "private": true, "type": "module" }\n');
  capture('npm', ['install', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error', ...install], { cwd: dir, env });
  for (const name of remove) rmSync(join(dir, 'node_modules', name), { recursive: true });
  copyFileSync(join(root, 'tooling/release-check/apps', script), join(dir, script));

  const { status, stdout, stderr } = spawnSync(command[0], [...command.slice(1), script], {
    cwd: dir,
    env,
    encoding: 'utf8',
    timeout: 120_000,
  });
  const output = stdout + stderr;
  console.log(output.trim().replace(/^/gm, '   '));
  const missing = expect.filter((text) => !output.includes(text));
  if (missing.length > 0) console.log(`   MISSING in the output: ${missing.join(' | ')}`);
  const asExpected = fails ? status !== 0 && status !== null : status === 0;
  if (!asExpected) console.log(`   UNEXPECTED exit status ${status}`);
  return asExpected && missing.length === 0;
}

/** The environment of a user who has only our registry: an empty home, an empty npm cache, no setting of this workspace. */
function userEnvironment(url) {
  const home = join(scratch, 'home');
  mkdirSync(home);
  writeFileSync(join(home, '.npmrc'), `registry=${url}\n${url.replace('http:', '')}:_authToken=anyone\nupdate-notifier=false\n`);
  const inherited = Object.entries(process.env).filter(([name]) => !/^(npm_|pnpm_|DEEPSPEED_TS_|NODE_OPTIONS$|INIT_CWD$)/i.test(name));
  return { ...Object.fromEntries(inherited), HOME: home };
}

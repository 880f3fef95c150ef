import { readdirSync, readFileSync } from 'node:fs';
import { pnpmPath } from './pnpm.mjs';
import { capture, root } from './run.mjs';

/** The workspace packages that go to the registry: `{ name, dir, manifest }`, each after the ones it depends on. */
export function publishedPackages() {
  const folders = readdirSync(`${root}/packages`).flatMap((name) => {
    const dir = `packages/${name}`;
    return [...platformFolders(dir), dir];
  });
  const found = folders.map((dir) => ({ dir, manifest: JSON.parse(readFileSync(`${root}/${dir}/package.json`, 'utf8')) }));
  const packages = found.filter(({ manifest }) => !manifest.private).map(({ dir, manifest }) => ({ name: manifest.name, dir, manifest }));
  return inDependencyOrder(packages);
}

/** Whether a published package is a native binary for one platform. */
export const isPlatformPackage = ({ manifest }) => manifest.os !== undefined;

/** Packs a package as `pnpm publish` would (workspace versions made exact) and gives the tarball's path. */
export function pack({ dir }, destination) {
  const out = capture(process.execPath, [pnpmPath(), 'pack', '--json', '--pack-destination', destination], { cwd: `${root}/${dir}` });
  return JSON.parse(out).filename;
}

function platformFolders(dir) {
  try {
    return readdirSync(`${root}/${dir}/npm`).map((platform) => `${dir}/npm/${platform}`);
  } catch {
    return [];
  }
}

function inDependencyOrder(packages) {
  const byName = new Map(packages.map((entry) => [entry.name, entry]));
  const ordered = new Set();
  const visit = (entry) => {
    if (ordered.has(entry)) return;
    const { dependencies = {}, optionalDependencies = {} } = entry.manifest;
    for (const name of Object.keys({ ...dependencies, ...optionalDependencies })) if (byName.has(name)) visit(byName.get(name));
    ordered.add(entry);
  };
  packages.forEach(visit);
  return [...ordered];
}

import { cpSync, existsSync, lstatSync, mkdirSync, readdirSync, readFileSync, readlinkSync, realpathSync, symlinkSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';

/** Workspace packages that the GPU tests and benchmarks load. */
const workspaces = ['core', 'deepspeed-ts', 'kernels-cpu', 'kernels-cuda', 'launcher', 'test-kit', 'transformers', 'zero'].map(
  (name) => `packages/${name}`,
);
/** Needed only to build addons, to download from the Hub, to check types, or to read style sheets and other languages' configuration. */
const left = /^(node-addon-api|cmake-js|@huggingface\/hub$|@types\/|lightningcss|typescript|jiti$|yaml$|@deepspeed-ts\/kernels-.*-linux)/;
/** Documents, types, and the second copy of esbuild's program that its install script makes. */
const uselessFile = /\.(map|d\.[cm]?ts|md|markdown|flow)$|\/esbuild\/bin\/esbuild$/i;

/**
 * Copies what node_modules holds for running tests from source: what tests take from the root, the dependencies of the workspace's
 * packages, and all that these need. Links stay links, so the layout is pnpm's.
 */
export function copyModules(root, target) {
  const pending = [];
  link('', ['vitest', 'tsx', 'fast-check', '@deepspeed-ts/test-kit']);
  for (const workspace of [...workspaces, 'bench']) {
    const { dependencies = {} } = JSON.parse(readFileSync(`${root}/${workspace}/package.json`, 'utf8'));
    link(workspace, Object.keys(dependencies));
  }
  const done = new Set();
  while (pending.length > 0) {
    const store = pending.pop();
    if (done.has(store)) continue;
    done.add(store);
    copyStore(store);
  }

  /** Links of one package's node_modules to the given dependencies. */
  function link(workspace, names) {
    for (const name of names.filter((entry) => !left.test(entry))) copyLink(join(workspace, 'node_modules', name));
  }

  function copyLink(path) {
    const from = join(root, path);
    if (!existsSync(from)) return;
    const to = join(target, path);
    mkdirSync(dirname(to), { recursive: true });
    symlinkSync(readlinkSync(from), to);
    const store = storeOf(relative(root, realpathSync(from)));
    if (store) pending.push(store);
  }

  /** One folder of node_modules/.pnpm: the package itself, and links to what it needs. */
  function copyStore(store) {
    for (const name of packagesIn(join(root, store))) {
      if (left.test(name)) continue;
      const path = join(store, name);
      if (lstatSync(join(root, path)).isSymbolicLink()) copyLink(path);
      else cpSync(join(root, path), join(target, path), { recursive: true, filter: (file) => !uselessFile.test(file) });
    }
  }
}

function storeOf(path) {
  return /^node_modules\/\.pnpm\/[^/]+\/node_modules/.exec(path)?.[0];
}

function packagesIn(folder) {
  const names = readdirSync(folder).filter((name) => !name.startsWith('.'));
  return names.flatMap((name) => (name.startsWith('@') ? readdirSync(join(folder, name)).map((inner) => `${name}/${inner}`) : [name]));
}

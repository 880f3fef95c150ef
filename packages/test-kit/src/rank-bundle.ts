import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { mkdir, rename, writeFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { build, type Plugin } from 'esbuild';

const folder = fileURLToPath(new URL('../node_modules/.cache/ranks', import.meta.url));
const bundles = new Map<string, Promise<string>>();

/**
 * A program that ranks run, with all that it imports, as one JavaScript file. `given` is a module that the program can ask for. Node reads hundreds
 * of source files through tsx in more than a second of CPU time for every process; a bundle is made once and read in a tenth of that.
 */
export function bundleOf(module: URL, given?: URL): Promise<string> {
  const key = `${module} ${given}`;
  const bundle = bundles.get(key) ?? make(module, given);
  bundles.set(key, bundle);
  return bundle;
}

async function make(module: URL, given?: URL): Promise<string> {
  const name = createHash('sha256').update(`${module} ${given}`).digest('hex').slice(0, 8);
  const outfile = `${folder}/${basename(module.pathname, '.ts')}-${name}.mjs`;
  const load = (url: URL | undefined) => (url ? `() => import(${JSON.stringify(fileURLToPath(url))})` : 'undefined');
  const { outputFiles } = await build({
    stdin: {
      contents: `import { runRank } from './rank-main.ts'; runRank(${load(module)}, ${load(given)});`,
      resolveDir: fileURLToPath(new URL('.', import.meta.url)),
    },
    outfile,
    write: false,
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node20',
    conditions: ['@deepspeed-ts/source'],
    sourcemap: 'linked',
    logLevel: 'error',
    // For what is CommonJS.
    banner: { js: `import { createRequire as requireOf } from 'node:module'; const require = requireOf(import.meta.url);` },
    plugins: [places, whatIsThere],
  });
  await mkdir(folder, { recursive: true });
  // Other test processes may be making the same one, or starting ranks with it.
  for (const { path, contents } of outputFiles) {
    await writeFile(`${path}.${process.pid}`, contents);
    await rename(`${path}.${process.pid}`, path);
  }
  return outfile;
}

/** Modules find what lies beside them by `import.meta.url`, which stays that of the source. */
const places: Plugin = {
  name: 'places',
  setup({ onLoad }) {
    onLoad({ filter: /\.m?[jt]s$/ }, ({ path }) => {
      const source = readFileSync(path, 'utf8');
      if (!source.includes('import.meta.url')) return undefined;
      const contents = source.replaceAll('import.meta.url', JSON.stringify(pathToFileURL(path).href));
      return { contents, loader: path.endsWith('.ts') ? 'ts' : 'js' };
    });
  },
};

/** A package that is imported where it is needed, and not installed, is an error there and not here. */
const whatIsThere: Plugin = {
  name: 'what is there',
  setup({ onResolve, resolve }) {
    onResolve({ filter: /^[^./]/ }, async ({ path, kind, importer, resolveDir, pluginData }) => {
      if (kind !== 'dynamic-import' || pluginData === 'asked') return undefined;
      const found = await resolve(path, { kind, importer, resolveDir, pluginData: 'asked' });
      return found.errors.length > 0 ? { path, external: true } : undefined;
    });
  },
};

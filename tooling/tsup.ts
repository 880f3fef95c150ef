import { defineConfig } from 'tsup';

/** How every published package is built: ESM and its types; the bundle keeps imports of other packages as imports. */
export function library(...entry: string[]): ReturnType<typeof defineConfig> {
  return defineConfig({ entry, format: 'esm', target: 'node20', dts: true, clean: true, sourcemap: true, silent: true });
}

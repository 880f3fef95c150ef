import { defineConfig } from 'vitest/config';

// Tests run from source: the workspace's packages resolve through their `@deepspeed-ts/source` export, so no build of TypeScript comes first.
const conditions = ['@deepspeed-ts/source', 'node', 'import', 'module', 'default'];

export default defineConfig({
  resolve: { conditions },
  ssr: { resolve: { conditions } },
  test: {
    include: ['{packages,examples}/*/**/*.test.ts', '{bench,tooling}/**/*.test.{ts,mjs}'],
    exclude: ['**/node_modules/**', '**/dist/**', '**/build/**'],
    pool: 'forks',
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
});

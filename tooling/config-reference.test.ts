import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { strictSchema } from '../packages/core/src/config/index.js';
import { SECTIONS } from '../packages/deepspeed-ts/src/config/index.js';
import { generated } from './config-reference.js';

const files = generated();

describe('the config reference', () => {
  it.each(Object.keys(files))('%s is up to date with the schemas (npm run docs:config)', (path) => {
    expect(readFileSync(new URL(`../${path}`, import.meta.url), 'utf8')).toBe(files[path]);
  });

  it('describes every key', () => {
    const missing: string[] = [];
    const visit = (schema: ReturnType<typeof strictSchema>, path: string) => {
      if (path !== '' && schema.description === undefined && schema.unsupported === undefined) missing.push(path);
      for (const [key, inner] of Object.entries(schema.properties ?? {})) visit(inner, `${path}.${key}`);
      for (const branch of schema.oneOf ?? []) {
        const { type: _, ...others } = branch.properties!;
        for (const [key, inner] of Object.entries(others)) visit(inner, `${path}.${key}`);
      }
    };
    visit(strictSchema(SECTIONS), '');
    expect(missing).toEqual([]);
  });
});

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { describe, expect, it } from 'vitest';
import { strictSchema } from '../packages/core/src/config/index.js';
import { SECTIONS } from '../packages/deepspeed-ts/src/config/index.js';
import { generated } from './config-reference.js';

const files = generated();

describe('the config reference', () => {
  it.each(Object.keys(files))('%s is up to date with the schemas (npm run docs:config)', (path) => {
    expect(readFileSync(new URL(`../${path}`, import.meta.url), 'utf8')).toBe(files[path]);
  });

  it('gives editors a schema of plain draft 7 that accepts a good config and finds a typo', () => {
    const { Ajv } = createRequire(new URL('../packages/core/package.json', import.meta.url))('ajv');
    const validate = new Ajv().compile(JSON.parse(files['packages/deepspeed-ts/config.schema.json']!));
    const good = {
      $schema: './config.schema.json',
      train_batch_size: 8,
      optimizer: { type: 'adamw', params: { lr: 1e-3, betas: [0.9, 0.95] } },
      scheduler: { type: 'WarmupLR', params: { warmup_num_steps: 10 } },
      zero_optimization: { stage: 3, offload_param: { device: 'none' } },
    };
    expect(validate(good)).toBe(true);
    expect(validate({ ...good, train_batchsize: 8 })).toBe(false);
    expect(validate({ ...good, scheduler: { type: 'WarmupLR', params: { warmup_steps: 10 } } })).toBe(false);
    expect(validate({ ...good, zero_optimization: { offload_param: { device: 'cpu' } } })).toBe(false);
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

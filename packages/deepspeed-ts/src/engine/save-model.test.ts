import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { rounded, SafetensorsFile } from '@deepspeed-ts/core';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { DeepSpeedEngine } from './engine.js';
import { tinyBatch, withEngine } from './test-support.js';

let directory: string;
beforeEach(() => {
  directory = join(mkdtempSync(join(tmpdir(), 'save-model-')), 'model');
});
afterEach(() => rmSync(join(directory, '..'), { recursive: true, force: true }));

const names = () => readdirSync(directory).sort();
const config = () => JSON.parse(readFileSync(join(directory, 'config.json'), 'utf8'));

/** Every weight in its file is the master weight, rounded to a dtype. */
async function expectWeights(
  engine: DeepSpeedEngine,
  dtype: 'f32' | 'bf16' | 'f16',
  fileOf: (name: string) => string = () => 'model.safetensors',
) {
  for await (const [name, value] of engine.weights()) {
    using file = new SafetensorsFile(join(directory, fileOf(name)));
    expect(file.tensor(name), name).toEqual(rounded({ ...value, dtype }));
    expect(file.metadata).toEqual({ format: 'pt' });
  }
}

describe('save16bitModel', () => {
  it.each([
    ['bf16', 'bfloat16', { bf16: { enabled: true }, zero_optimization: { stage: 3 } }],
    ['f16', 'float16', { fp16: { enabled: true }, zero_optimization: { stage: 2 } }],
    ['bf16', 'bfloat16', {}],
  ] as const)('writes %s weights where the run computes in it, and bf16 for one in f32', async (dtype, torch, precision) => {
    await withEngine(precision, async (engine) => {
      await engine.trainBatch([tinyBatch(0)]);
      await engine.save16bitModel(directory);
      expect(names()).toEqual(['config.json', 'model.safetensors']);
      expect(config()).toMatchObject({ model_type: 'gpt2', dtype: torch });
      await expectWeights(engine, dtype);
    });
  });

  it('writes the dtype that is asked for', async () => {
    await withEngine({ bf16: { enabled: true } }, async (engine) => {
      await engine.save16bitModel(directory, { dtype: 'f16' });
      expect(config().dtype).toBe('float16');
      await expectWeights(engine, 'f16');
    });
  });

  it('refuses a weight that f16 can not hold, by name, and leaves what was there', async () => {
    const initial = (name: string) => (name === 'transformer.ln_f.weight' ? [1, 2, 3, 4, 70000, 6, 7, 8] : undefined);
    await withEngine(
      {},
      async (engine) => {
        await engine.saveModel(directory);
        const before = readFileSync(join(directory, 'model.safetensors'));
        await expect(engine.save16bitModel(directory, { dtype: 'f16' })).rejects.toThrow(
          "transformer.ln_f.weight has a weight of 70000, which f16 can't hold (its largest is 65504); save with { dtype: 'bf16' }",
        );
        expect(names()).toEqual(['config.json', 'model.safetensors']);
        expect(readFileSync(join(directory, 'model.safetensors'))).toEqual(before);
        await engine.save16bitModel(directory);
        await expectWeights(engine, 'bf16');
      },
      { initial },
    );
  });

  it('numbers files of at most so many bytes, with the index that Hugging Face reads', async () => {
    await withEngine({ zero_optimization: { stage: 3 } }, async (engine) => {
      const limit = 500;
      await engine.save16bitModel(directory, { maxShardBytes: limit });
      const { metadata, weight_map } = JSON.parse(readFileSync(join(directory, 'model.safetensors.index.json'), 'utf8'));
      const files = names().filter((name) => name.endsWith('.safetensors'));
      expect(files.length).toBeGreaterThan(3);
      expect(files[0]).toBe(`model-00001-of-0000${files.length}.safetensors`);
      expect([...new Set(Object.values(weight_map))].sort()).toEqual(files);
      const sizes = files.map((name) => {
        using file = new SafetensorsFile(join(directory, name));
        const bytes = [...file.entries.values()].map(({ data_offsets: [begin, end] }) => end - begin);
        const total = bytes.reduce((a, b) => a + b, 0);
        expect(total <= limit || bytes.length === 1, name).toBe(true);
        return total;
      });
      expect(sizes.reduce((a, b) => a + b, 0)).toBe(metadata.total_size);
      await expectWeights(engine, 'bf16', (name) => weight_map[name]);
    });
  });

  it('removes weights of an earlier save, which would be found beside the new ones, and nothing else', async () => {
    await withEngine({}, async (engine) => {
      await engine.save16bitModel(directory, { maxShardBytes: 500 });
      writeFileSync(join(directory, 'tokenizer.json'), '{}');
      await engine.save16bitModel(directory);
      expect(names()).toEqual(['config.json', 'model.safetensors', 'tokenizer.json']);
      await engine.saveModel(directory, { model_type: 'own' });
      expect(config()).toEqual({ model_type: 'own', dtype: 'float32' });
      await expectWeights(engine, 'f32');
    });
  });

  it('says why a directory can not be written', async () => {
    const blocked = join(directory, '..', 'file');
    writeFileSync(blocked, '');
    await withEngine({}, async (engine) => {
      await expect(engine.save16bitModel(join(blocked, 'model'))).rejects.toMatchObject({
        code: 'ERR_CHECKPOINT_WRITE',
        path: expect.stringContaining(blocked),
      });
      expect(existsSync(directory)).toBe(false);
    });
  });
});

import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Device, hostTensor, noGrad, SafetensorsFile, scope, tensor } from '@deepspeed-ts/core';
import { cpuBackend } from '@deepspeed-ts/kernels-cpu';
import { AutoModelForCausalLM, type FromPretrainedOptions, type PretrainedModel } from '@deepspeed-ts/transformers';
import { describe, expect, it, test } from 'vitest';
import { readJson, readTensors, relativeError } from '../golden.js';
import { withDevice } from '../with-device.js';
import { type Tensors, temporaryFolder, tensorsOf, tinyGpt2, tinyLlama, writeModel } from './directories.js';

const folder = temporaryFolder();
const fixtures = fileURLToPath(new URL('../../golden/loading', import.meta.url));
let made = 0;

function write(config: object, tensors: Tensors, shards = 1): Promise<string> {
  return writeModel(join(folder, String(made++)), config, tensors, shards);
}

/** Loads onto the CPU and compares all weights with what is expected. */
async function expectWeights(directory: string, expected: Tensors, options: FromPretrainedOptions = {}): Promise<PretrainedModel> {
  return withDevice(cpuBackend(), async (device) => {
    const model = await AutoModelForCausalLM.fromPretrained(directory, { ...options, device });
    const values = model.store!.stateDict();
    expect([...values.keys()].sort()).toEqual([...expected.keys()].sort());
    for (const [name, value] of values) {
      using wanted = tensor(device, expected.get(name)!.data, value.dtype, value.shape);
      expect(value.readSync().data, name).toEqual(wanted.readSync().data);
    }
    model.dispose();
    return model;
  });
}

const renamed = (tensors: Tensors, rename: (name: string) => string): Tensors =>
  new Map([...tensors].map(([name, value]) => [rename(name), value]));

describe('a model directory', () => {
  it('has its weights in one file or in those of an index', async () => {
    const tensors = tensorsOf(tinyLlama);
    await expectWeights(await write(tinyLlama, tensors), tensors);
    await expectWeights(await write(tinyLlama, tensors, 3), tensors);
  });

  it.each([
    ['f32', 'f32'],
    ['f16', 'f16'],
    ['bf16', 'bf16'],
  ] as const)('is loaded in the dtype of its files: %s', async (stored, dtype) => {
    const model = await expectWeights(await write(tinyGpt2, tensorsOf(tinyGpt2, stored)), tensorsOf(tinyGpt2, stored));
    expect(model.dtype).toBe(dtype);
  });

  it('is loaded in the dtype that config.json names, in its new or its old key, or in the one asked for', async () => {
    const of = async (config: object, options: FromPretrainedOptions = {}) =>
      (await AutoModelForCausalLM.fromPretrained(await write({ ...tinyGpt2, ...config }, tensorsOf(tinyGpt2)), options)).dtype;
    expect(await of({ dtype: 'bfloat16' })).toBe('bf16');
    expect(await of({ torch_dtype: 'float16' })).toBe('f16');
    expect(await of({ dtype: 'bfloat16' }, { dtype: 'f32' })).toBe('f32');
    await expect(of({}, { dtype: 'f64' as 'f32' })).rejects.toThrow(/dtype: expected 'auto', 'f32', 'bf16' or 'f16', got 'f64'/);
  });

  it('may leave out the prefix of the base model, and hold masks and tables that older libraries saved', async () => {
    const tensors = tensorsOf(tinyGpt2);
    const bare = renamed(tensors, (name) => name.replace('transformer.', ''));
    bare.set('h.0.attn.bias', hostTensor([1, 1, 2, 2], 'u8', [1, 0, 1, 1]));
    bare.set('h.0.attn.masked_bias', hostTensor([], 'f32', [-1e4]));
    const model = await expectWeights(await write(tinyGpt2, bare), tensors, { strict: true });
    expect(model.report).toEqual({ missing: [], unexpected: [], mismatched: [] });
  });

  it('may have the head of a tied model, or that in place of the embedding', async () => {
    const tensors = tensorsOf(tinyGpt2);
    const embedding = tensors.get('transformer.wte.weight')!;
    await expectWeights(await write(tinyGpt2, new Map([...tensors, ['lm_head.weight', embedding]])), tensors, { strict: true });
    await expectWeights(
      await write(
        tinyGpt2,
        renamed(tensors, (name) => name.replace('transformer.wte', 'lm_head')),
      ),
      tensors,
    );
  });

  it('may be a pickle of PyTorch, as GPT-2 was first published, and shards of them in half precision', async () => {
    for (const name of ['gpt2-bin', 'llama-bin-shards']) {
      const expected = readJson<{ input_ids: number[][]; logits: number[] }>(join(fixtures, name, 'expected.json'));
      await withDevice(cpuBackend(), async (device) => {
        const model = await AutoModelForCausalLM.fromPretrained(join(fixtures, name), { device, dtype: 'f32', strict: true });
        scope(() => {
          const ids = tensor(device, expected.input_ids.flat(), 'i32', [1, expected.input_ids[0]!.length]);
          expect(relativeError(noGrad(() => model.logits(ids)).readSync().data, expected.logits), name).toBeLessThan(1e-5);
        });
        model.dispose();
      });
    }
    expect((await AutoModelForCausalLM.fromPretrained(join(fixtures, 'llama-bin-shards'))).dtype).toBe('f16');
  });

  it('may hold doubles, which become f32', async () => {
    const tensors = tensorsOf(tinyGpt2);
    const directory = await write(tinyGpt2, tensors);
    toDoubles(join(directory, 'model.safetensors'), tensors);
    await expectWeights(directory, tensors, { dtype: 'f32' });
  });

  it('can be changed by entries of another config', async () => {
    const directory = await write(tinyLlama, tensorsOf(tinyLlama));
    const model = await AutoModelForCausalLM.fromPretrained(directory, { config: { max_position_embeddings: 64 } });
    expect(model.config.maxPositions).toBe(64);
  });

  it('says how to generate in a file of its own, else in config.json', async () => {
    const directory = await write({ ...tinyGpt2, eos_token_id: 3 }, tensorsOf(tinyGpt2));
    expect((await AutoModelForCausalLM.fromPretrained(directory)).generationConfig).toEqual({ eos_token_id: 3 });
    writeFileSync(join(directory, 'generation_config.json'), '{"eos_token_id": [3, 4], "temperature": 0.6}');
    expect((await AutoModelForCausalLM.fromPretrained(directory)).generationConfig).toEqual({ eos_token_id: [3, 4], temperature: 0.6 });
  });
});

describe('every family', () => {
  const golden = fileURLToPath(new URL('../../golden', import.meta.url));
  const families = readdirSync(join(golden, 'families')).map((name) => join('families', name));

  it.each([...families, 'mixtral'])(
    'has the weights that transformers wrote, with and without the prefix, and saves them alike: %s',
    async (name) => {
      const source = join(golden, name);
      const expected = await bytesOf(source);
      const tensors = readTensors(join(source, 'model.safetensors'));
      const bare = await write(
        readJson(join(source, 'config.json')),
        renamed(tensors, (key) => (/^(lm_head|embed_out)/.test(key) ? key : key.replace(/^\w+\./, ''))),
      );
      await withDevice(cpuBackend(), async (device) => {
        for (const directory of [source, bare]) {
          const model = await AutoModelForCausalLM.fromPretrained(directory, { device, strict: true });
          const saved = join(folder, String(made++));
          await model.savePretrained(saved);
          expect(await bytesOf(saved)).toEqual(expected);
          model.dispose();
        }
      });
    },
  );
});

describe('weights that do not fit', () => {
  const without = (name: string) => {
    const tensors = tensorsOf(tinyLlama);
    tensors.delete(name);
    return tensors;
  };

  it('are refused where one is missing, unless that is allowed: then it begins as its seed says', async () => {
    const directory = await write(tinyLlama, without('lm_head.weight'));
    await expect(AutoModelForCausalLM.fromPretrained(directory)).rejects.toMatchObject({
      code: 'ERR_PRETRAINED_MISMATCH',
      message: expect.stringMatching(
        /do not fit the model:\n- lm_head.weight is missing\n\{ allowMissing: true \} lets them begin with new values/,
      ),
    });
    const device = new Device(cpuBackend());
    const heads = [];
    for (const seed of [1, 1, 2]) {
      const model = await AutoModelForCausalLM.fromPretrained(directory, { allowMissing: true, device, seed });
      expect(model.report.missing).toEqual(['lm_head.weight']);
      heads.push(model.store!.stateDict().get('lm_head.weight')!.readSync().data);
      model.dispose();
    }
    expect(heads[0]).toEqual(heads[1]);
    expect(heads[0]).not.toEqual(heads[2]);
  });

  it('are refused with name, shapes and file where a shape differs, unless that is allowed', async () => {
    const tensors = tensorsOf(tinyLlama);
    tensors.set('model.norm.weight', hostTensor([5], 'f32'));
    const directory = await write(tinyLlama, tensors);
    await expect(AutoModelForCausalLM.fromPretrained(directory)).rejects.toThrow(
      new RegExp(`model.norm.weight: expected shape \\[16\\], got \\[5\\] in ${directory}/model.safetensors`),
    );
    const { report } = await AutoModelForCausalLM.fromPretrained(directory, { ignoreMismatchedSizes: true });
    expect(report.mismatched).toEqual([
      { name: 'model.norm.weight', expected: [16], got: [5], file: join(directory, 'model.safetensors') },
    ]);
  });

  it('are reported where the model has no use for them, and refused when strict', async () => {
    const tensors = tensorsOf(tinyLlama).set('score.weight', hostTensor([2], 'f32'));
    const directory = await write(tinyLlama, tensors);
    expect((await AutoModelForCausalLM.fromPretrained(directory)).report.unexpected).toEqual(['score.weight']);
    await expect(AutoModelForCausalLM.fromPretrained(directory, { strict: true })).rejects.toThrow(/- score.weight is not in the model/);
  });
});

describe('what is no model directory is refused with the reason', () => {
  const load = (path: string) => AutoModelForCausalLM.fromPretrained(path);
  const empty = () => {
    const path = join(folder, String(made++));
    mkdirSync(path);
    return path;
  };

  test('a path where nothing is, and a file', async () => {
    await expect(load(join(folder, 'none', 'here'))).rejects.toMatchObject({
      code: 'ERR_PRETRAINED_MISSING',
      path: join(folder, 'none', 'here'),
    });
    const path = join(folder, 'file');
    writeFileSync(path, '');
    await expect(load(path)).rejects.toThrow(/expected a model directory, got a file/);
  });

  test('a directory without config.json, or with one that is damaged or says no model_type', async () => {
    const path = empty();
    await expect(load(path)).rejects.toThrow(/there is no config.json, so it is not a model directory/);
    writeFileSync(join(path, 'adapter_config.json'), '{}');
    await expect(load(path)).rejects.toThrow(/it has an adapter, which PeftModel.fromPretrained/);
    writeFileSync(join(path, 'config.json'), '{"model_type": ');
    await expect(load(path)).rejects.toThrow(/config.json: is not JSON/);
    writeFileSync(join(path, 'config.json'), '[]');
    await expect(load(path)).rejects.toThrow(/config.json: expected a JSON object, got a list/);
    writeFileSync(join(path, 'config.json'), '{"vocab_size": 3}');
    await expect(load(path)).rejects.toThrow(/config.json: has no 'model_type'/);
  });

  test('weights that are quantised', async () => {
    const path = await write({ ...tinyGpt2, quantization_config: { quant_method: 'gptq' } }, tensorsOf(tinyGpt2));
    await expect(load(path)).rejects.toThrow(/its weights are quantised \(gptq\), which is not supported/);
  });

  test('a family that is not supported, with those that are', async () => {
    const path = await write(tinyGpt2, tensorsOf(tinyGpt2));
    writeFileSync(join(path, 'config.json'), '{"model_type": "bert"}');
    await expect(load(path)).rejects.toThrow(/'bert'; supported: .*gpt2.*llama/);
  });

  test('no weights, and what is there', async () => {
    const path = empty();
    writeFileSync(join(path, 'config.json'), JSON.stringify(tinyGpt2));
    await expect(load(path)).rejects.toThrow(/there are no weights: expected model.safetensors or .*found config.json/);
  });

  test('an index that names a file that is not there, or is none', async () => {
    const path = await write(tinyLlama, tensorsOf(tinyLlama), 2);
    rmSync(join(path, 'model-00002-of-00002.safetensors'));
    await expect(load(path)).rejects.toThrow(/index.json: names 1 of 2 files that are not there: model-00002-of-00002.safetensors/);
    writeFileSync(join(path, 'model.safetensors.index.json'), '{}');
    await expect(load(path)).rejects.toThrow(/has no weight_map/);
  });

  test('safetensors that were cut', async () => {
    const path = await write(tinyLlama, tensorsOf(tinyLlama));
    const file = join(path, 'model.safetensors');
    truncateSync(file, statSync(file).size - 100);
    await expect(load(path)).rejects.toThrow(/model.safetensors: tensor '.*' lies at bytes .*: the file is truncated/);
    truncateSync(file, 50);
    await expect(load(path)).rejects.toThrow(/truncated or not a safetensors file/);
  });

  test('safetensors that are cut after they were opened', async () => {
    const path = await write(tinyLlama, tensorsOf(tinyLlama));
    const model = await AutoModelForCausalLM.fromPretrained(path);
    truncateSync(join(path, 'model.safetensors'), statSync(join(path, 'model.safetensors')).size - 100);
    await withDevice(cpuBackend(), async (device) => {
      await expect(model.load(device)).rejects.toThrow(/truncated/);
    });
  });
});

describe('savePretrained', () => {
  it('writes what was loaded byte for byte, in one file or several, with config and the files of the tokenizer', async () => {
    const source = await write({ ...tinyLlama, torch_dtype: 'bfloat16' }, tensorsOf(tinyLlama, 'bf16'));
    const companions = {
      'tokenizer.json': '{}',
      'tokenizer_config.json': '{"a": 1}',
      'chat_template.jinja': 'x',
      'generation_config.json': '{}',
    };
    for (const [name, text] of Object.entries(companions)) writeFileSync(join(source, name), text);
    writeFileSync(join(source, 'README.md'), 'not a part of it');
    const device = new Device(cpuBackend());
    for (const maxShardBytes of [5e9, 2000]) {
      const model = await AutoModelForCausalLM.fromPretrained(source, { device });
      const saved = join(folder, String(made++));
      await model.savePretrained(saved, { maxShardBytes });
      model.dispose();
      const again = await AutoModelForCausalLM.fromPretrained(saved, { strict: true });
      expect(again.dtype).toBe('bf16');
      expect(readJson(join(saved, 'config.json'))).toEqual({ ...tinyLlama, torch_dtype: 'bfloat16', dtype: 'bfloat16' });
      for (const [name, text] of Object.entries(companions)) expect(readFileSync(join(saved, name), 'utf8')).toBe(text);
      expect(() => statSync(join(saved, 'README.md'))).toThrow();
      expect(await bytesOf(saved)).toEqual(await bytesOf(source));
    }
    expect(device.describeLive()).toEqual([]);
  });

  it('needs weights', async () => {
    const model = await AutoModelForCausalLM.fromConfig(tinyGpt2);
    await expect(model.savePretrained(join(folder, 'never'))).rejects.toThrow(/the model holds no weights: load it onto a device first/);
  });
});

/** All tensors of a directory as they are stored. */
async function bytesOf(directory: string): Promise<Map<string, string>> {
  const index = join(directory, 'model.safetensors.index.json');
  const found = new Map<string, string>();
  let names = ['model.safetensors'];
  try {
    names = [...new Set(Object.values(readJson<{ weight_map: Record<string, string> }>(index).weight_map))];
  } catch {}
  for (const name of names) {
    using file = new SafetensorsFile(join(directory, name));
    for (const [tensor, { shape }] of file.entries) {
      const { dtype, bytes } = await file.readBytes(
        tensor,
        0,
        shape.reduce((n, size) => n * size, 1),
      );
      found.set(tensor, `${dtype} [${shape}] ${Buffer.from(bytes).toString('base64')}`);
    }
  }
  return new Map([...found].sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** Rewrites a file of f32 as one of f64. */
function toDoubles(path: string, tensors: Tensors): void {
  let offset = 0;
  const entries = [...tensors].map(([name, { shape, data }]) => {
    const begin = offset;
    offset += 8 * data.length;
    return [name, { dtype: 'F64', shape, data_offsets: [begin, offset] }];
  });
  const header = Buffer.from(JSON.stringify(Object.fromEntries(entries)));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  const values = [...tensors.values()].map(({ data }) => Buffer.from(Float64Array.from(data, Math.fround).buffer));
  writeFileSync(path, Buffer.concat([length, header, ...values]));
}

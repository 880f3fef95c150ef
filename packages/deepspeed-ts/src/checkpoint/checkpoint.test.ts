import {
  appendFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SafetensorsFile, uniforms } from '@deepspeed-ts/core';
import { DecoderLM, gpt2 } from '@deepspeed-ts/transformers';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { DataLoader } from '../data/index.js';
import type { DeepSpeedEngine } from '../engine/engine.js';
import { tinyBatch, tinyModel, usable, weightsOf, withEngine } from '../engine/test-support.js';
import { initialize } from '../initialize.js';
import { CheckpointError } from './error.js';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'checkpoints-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const at = (...parts: string[]) => join(directory, ...parts);
const accumulate = (n: number) => ({ gradient_accumulation_steps: n });

async function step(engine: DeepSpeedEngine, times = 1): Promise<void> {
  for (let i = 0; i < times; i++) await engine.trainBatch([tinyBatch(engine.globalSteps)]);
}

/** Saves and waits until it is on disk. */
async function save(engine: DeepSpeedEngine, options?: Parameters<DeepSpeedEngine['saveCheckpoint']>[1]): Promise<string> {
  const saved = await engine.saveCheckpoint(directory, options);
  await saved.finished;
  return saved.path;
}

/** The checkpoint of one step, in `directory`. */
const saveOne = (config: object = {}) =>
  withEngine(config, async (engine) => {
    await step(engine);
    await save(engine, { tag: 'good' });
    return weightsOf(engine);
  });

describe('a checkpoint', () => {
  it('is a directory that Hugging Face reads, with what resuming takes beside it', async () => {
    await withEngine({}, async (engine) => {
      await step(engine, 2);
      expect(await save(engine, { clientState: { note: 'hello', best: [1.5, null] } })).toBe(at('global_step2'));
      expect(readdirSync(directory).sort()).toEqual(['global_step2', 'latest']);
      expect(readFileSync(at('latest'), 'utf8')).toBe('global_step2');
      expect(readdirSync(at('global_step2')).sort()).toEqual([
        'config.json',
        'deepspeed-ts.json',
        'model.safetensors',
        'optimizer-00001-of-00001.safetensors',
      ]);
      expect(JSON.parse(readFileSync(at('global_step2', 'config.json'), 'utf8'))).toMatchObject({ model_type: 'gpt2', dtype: 'float32' });
      using weights = new SafetensorsFile(at('global_step2', 'model.safetensors'));
      for await (const [name, value] of engine.weights()) expect(weights.tensor(name)).toEqual(value);
    });
  });

  it('brings back weights, optimizer state and client state', async () => {
    const clientState = { epoch: 3, names: ['a', 'b'] };
    const straight = await withEngine({}, async (engine) => {
      await step(engine, 2);
      await save(engine, { clientState });
      await step(engine, 2);
      return weightsOf(engine);
    });
    await withEngine({ zero_optimization: { stage: 3 } }, async (engine) => {
      const loaded = await engine.loadCheckpoint(directory);
      expect(loaded).toEqual({ path: at('global_step2'), clientState, missing: [], unexpected: [], mismatched: [], renamed: {} });
      expect([engine.globalSteps, engine.microSteps]).toEqual([2, 2]);
      await step(engine, 2);
      expect(await weightsOf(engine)).toEqual(straight);
    });
  });

  it('goes to and from bf16 with the master weights as they are', async () => {
    const bf16 = { bf16: { enabled: true } };
    const trained = await saveOne(bf16);
    const f32 = await withEngine({}, async (engine) => {
      await engine.loadCheckpoint(directory);
      return weightsOf(engine);
    });
    expect(f32).toEqual(trained);
    await withEngine(bf16, async (engine) => {
      await engine.loadCheckpoint(directory);
      expect(await weightsOf(engine)).toEqual(trained);
    });
  });

  it('can be overwritten by one of the same tag', async () => {
    await withEngine({}, async (engine) => {
      await save(engine, { tag: 'one', clientState: 1 });
      await step(engine);
      await save(engine, { tag: 'one', clientState: 2 });
      expect(readdirSync(directory).sort()).toEqual(['latest', 'one']);
      expect(await engine.loadCheckpoint(directory)).toMatchObject({ clientState: 2 });
    });
  });

  it('is written while training goes on: what it holds is the state of the call', async () => {
    await withEngine({}, async (engine) => {
      await step(engine);
      const expected = await weightsOf(engine);
      const saved = await engine.saveCheckpoint(directory);
      await step(engine, 3);
      await saved.finished;
      await engine.loadCheckpoint(directory);
      expect(await weightsOf(engine)).toEqual(expected);
    });
  });
});

describe('saving again and again', () => {
  it('keeps the newest so many, and what is no checkpoint', async () => {
    await withEngine({}, async (engine) => {
      mkdirSync(at('notes'));
      for (let i = 0; i < 4; i++) {
        await step(engine);
        await save(engine, { keepLast: 2 });
      }
      expect(readdirSync(directory).sort()).toEqual(['global_step3', 'global_step4', 'latest', 'notes']);
    });
  });

  it('moves latest unless told not to', async () => {
    await withEngine({}, async (engine) => {
      await save(engine, { tag: 'a' });
      await save(engine, { tag: 'b', saveLatest: false, keepLast: 1 });
      expect(readFileSync(at('latest'), 'utf8')).toBe('a');
      expect(await engine.loadCheckpoint(directory)).toMatchObject({ path: at('a') });
      expect(await engine.loadCheckpoint(directory, { tag: 'b' })).toMatchObject({ path: at('b') });
    });
  });

  it('waits for the save before, and dispose waits too', async () => {
    await withEngine({}, async (engine) => {
      void (await engine.saveCheckpoint(directory, { tag: 'a' }));
      void (await engine.saveCheckpoint(directory, { tag: 'b' }));
      expect(existsSync(at('a', 'deepspeed-ts.json'))).toBe(true);
    });
    expect(readFileSync(at('latest'), 'utf8')).toBe('b');
  });

  it('cleans up after saves that died, and puts back what one of them was about to replace', async () => {
    await saveOne();
    mkdirSync(at('.saving-global_step9~some-host~1~2~3'));
    writeFileSync(at('.saving-global_step9~some-host~1~2~3', 'model.safetensors'), 'half');
    mkdirSync(at('.removed-old'));
    renameSync(at('good'), at('.replaced-good'));
    await withEngine({}, async (engine) => {
      expect(await engine.loadCheckpoint(directory)).toMatchObject({ path: at('.replaced-good') });
      await save(engine, { tag: 'next' });
      expect(readdirSync(directory).sort()).toEqual(['good', 'latest', 'next']);
    });
  });
});

describe('resuming', () => {
  const schedule = { scheduler: { type: 'WarmupLR', params: { warmup_min_lr: 0, warmup_max_lr: 0.01, warmup_num_steps: 9 } } };
  const trainingData = {
    length: 23,
    get(index: number) {
      const tokens = Int32Array.from(uniforms({ seed: index }, 0, 6), (u) => Math.floor(u * 17));
      return { inputIds: tokens, labels: tokens };
    },
  };
  const settings = { trainingData, dropout: 0.2, seed: 4 };

  it.each([
    ['in the middle of an epoch', {}, 1],
    ['in the middle of a step', accumulate(3), 3],
    ['in the middle of a step in bf16', { ...accumulate(3), bf16: { enabled: true } }, 3],
  ])('%s gives the bits of a run that was never interrupted', async (_, config, perStep) => {
    const cut = perStep === 1 ? 5 : 5 * perStep + 2;
    const total = 12 * perStep;
    const micro = async (engine: DeepSpeedEngine, loader: DataLoader<never, never>, count: number) => {
      for (let i = 0; i < count; i++) {
        engine.backward(engine.forward(loader.next()));
        await engine.step();
      }
    };
    const open = async () => {
      const initialized = await initialize({ ...settings, model: tinyModel(0.2), config: { ...usable, ...schedule, ...config } });
      return { engine: initialized.engine, loader: initialized.dataloader as unknown as DataLoader<never, never> };
    };
    const straight = await open();
    await micro(straight.engine, straight.loader, total);
    const first = await open();
    await micro(first.engine, first.loader, cut);
    await save(first.engine);
    await first.engine.dispose();
    const second = await open();
    await second.engine.loadCheckpoint(directory);
    await micro(second.engine, second.loader, total - cut);
    expect(await weightsOf(second.engine)).toEqual(await weightsOf(straight.engine));
    expect(second.engine.lr).toEqual(straight.engine.lr);
    expect(second.loader.stateDict()).toEqual(straight.loader.stateDict());
    for (const { engine } of [straight, second]) await engine.dispose();
  });

  it('in the middle of a step needs the batch size it was begun with, or begins the step anew', async () => {
    await withEngine(accumulate(4), async (engine) => {
      for (const seed of [1, 2]) {
        engine.backward(engine.forward(tinyBatch(seed)));
        await engine.step();
      }
      await save(engine);
    });
    await withEngine(accumulate(3), async (engine) => {
      await expect(engine.loadCheckpoint(directory)).rejects.toThrow(
        /in the middle of a step, after 4 of 8 samples: .* got train_batch_size 6/,
      );
      await engine.loadCheckpoint(directory, { optimizer: false });
      expect(engine.microSteps).toBe(0);
    });
    await withEngine({ ...accumulate(8), train_micro_batch_size_per_gpu: 1 }, async (engine) => {
      await engine.loadCheckpoint(directory);
      expect(engine.microSteps).toBe(4);
    });
  });

  it('takes over only what is asked for', async () => {
    const trained = await saveOne();
    const exp_avg = async (engine: DeepSpeedEngine) => {
      for await (const [, { data }] of engine.optimizerState('exp_avg')) if (data.some((x) => x !== 0)) return 'some';
      return 'none';
    };
    await withEngine({}, async (engine) => {
      await engine.loadCheckpoint(directory, { moduleOnly: true });
      expect([await weightsOf(engine), engine.globalSteps, await exp_avg(engine)]).toEqual([trained, 0, 'none']);
    });
    await withEngine({}, async (engine) => {
      await engine.loadCheckpoint(directory, { optimizer: false });
      expect([await weightsOf(engine), engine.globalSteps, await exp_avg(engine)]).toEqual([trained, 1, 'none']);
    });
    await withEngine({ optimizer: { type: 'Lion', params: { lr: 1e-3 } } }, async (engine) => {
      await expect(engine.loadCheckpoint(directory)).rejects.toThrow(
        /another optimizer: expected states exp_avg, got exp_avg, exp_avg_sq;/,
      );
      await engine.loadCheckpoint(directory, { optimizer: false });
      expect(await weightsOf(engine)).toEqual(trained);
    });
    await withEngine(schedule, async (engine) => {
      await expect(engine.loadCheckpoint(directory)).rejects.toThrow(/saved without a learning-rate schedule.*scheduler: false/);
      await engine.loadCheckpoint(directory, { scheduler: false });
      expect([await weightsOf(engine), await exp_avg(engine)]).toEqual([trained, 'some']);
    });
  });
});

describe('a model with other parameters', () => {
  it('is refused with all differences, or takes over what fits', async () => {
    const trained = await saveOne();
    const model = () => new DecoderLM(gpt2({ vocabSize: 17, layers: 2, heads: 2, dim: 8, context: 5 }));
    await withEngine(
      {},
      async (engine) => {
        const before = await weightsOf(engine);
        const refused = await engine.loadCheckpoint(directory).catch((error: unknown) => error as CheckpointError);
        expect(refused).toBeInstanceOf(CheckpointError);
        expect(refused).toMatchObject({ code: 'ERR_CHECKPOINT_MISMATCH', path: at('good') });
        expect((refused as Error).message).toMatch(/wpe\.weight: the model has \[5, 8\], the checkpoint \[6, 8\]/);
        expect((refused as Error).message).toMatch(/h\.1\.ln_1\.weight \[8\] is missing in the checkpoint/);
        expect(await weightsOf(engine)).toEqual(before);
        const loaded = await engine.loadCheckpoint(directory, { strict: false });
        expect(loaded!.missing.every((name) => name.includes('.h.1.'))).toBe(true);
        expect(loaded).toMatchObject({ unexpected: [], mismatched: [{ name: 'transformer.wpe.weight', expected: [5, 8], got: [6, 8] }] });
        const after = await weightsOf(engine);
        expect(after.slice(0, 17 * 8)).toEqual(trained.slice(0, 17 * 8));
        expect(after.slice(17 * 8, 17 * 8 + 5 * 8)).toEqual(before.slice(17 * 8, 17 * 8 + 5 * 8));
      },
      { model: model() },
    );
  });
});

describe('what can go wrong', () => {
  const refuses = async (pattern: RegExp, code: string, path: string, options = {}) =>
    withEngine({}, async (engine) => {
      const before = await weightsOf(engine);
      const error = await engine.loadCheckpoint(directory, options).catch((thrown: unknown) => thrown as CheckpointError);
      expect(error).toBeInstanceOf(CheckpointError);
      expect(error).toMatchObject({ code, path, message: expect.stringMatching(pattern) });
      expect([engine.globalSteps, ...(await weightsOf(engine))]).toEqual([0, ...before]);
    });
  const model = () => at('good', 'model.safetensors');

  it('no checkpoint at all is no error, an unknown tag is one', async () => {
    await withEngine({}, async (engine) => expect(await engine.loadCheckpoint(at('nothing'))).toBeUndefined());
    await saveOne();
    await refuses(/no checkpoint 'bad'; there are good/, 'ERR_CHECKPOINT_MISSING', at('bad'), { tag: 'bad' });
    writeFileSync(at('latest'), 'gone');
    await refuses(/no checkpoint 'gone', which .*latest names; there are good/, 'ERR_CHECKPOINT_MISSING', at('gone'));
    mkdirSync(at('empty'));
    const manifest = at('empty', 'deepspeed-ts.json');
    await refuses(/deepspeed-ts.json is missing/, 'ERR_CHECKPOINT_MISSING', manifest, { tag: 'empty' });
  });

  it.each(['model.safetensors', 'optimizer-00001-of-00001.safetensors', 'config.json', 'deepspeed-ts.json'])(
    'one flipped bit in %s is noticed',
    async (name) => {
      await saveOne();
      const bytes = readFileSync(at('good', name));
      bytes[Math.floor(bytes.length * 0.6)]! ^= 4;
      writeFileSync(at('good', name), bytes);
      await refuses(/is damaged: /, 'ERR_CHECKPOINT_CORRUPT', at('good', name));
    },
  );

  it('a file that is cut, longer or missing is named', async () => {
    await saveOne();
    const whole = readFileSync(model());
    truncateSync(model(), whole.length - 5);
    await refuses(new RegExp(`damaged: expected ${whole.length} bytes, it has ${whole.length - 5}`), 'ERR_CHECKPOINT_CORRUPT', model());
    writeFileSync(model(), whole);
    appendFileSync(model(), 'x');
    await refuses(/damaged/, 'ERR_CHECKPOINT_CORRUPT', model());
    rmSync(model());
    await refuses(/model.safetensors is missing/, 'ERR_CHECKPOINT_MISSING', model());
  });

  it('damaged optimizer files do not matter to who wants the weights', async () => {
    const trained = await saveOne();
    rmSync(at('good', 'optimizer-00001-of-00001.safetensors'));
    await withEngine({}, async (engine) => {
      await engine.loadCheckpoint(directory, { moduleOnly: true });
      expect(await weightsOf(engine)).toEqual(trained);
    });
  });

  it('arguments that mean nothing are refused before anything is written', async () => {
    await withEngine({}, async (engine) => {
      const refused = (options: object) => expect(engine.saveCheckpoint(directory, options)).rejects;
      for (const tag of ['../up', 'a/b', '', '.hidden', 'latest']) await refused({ tag }).toThrow(/tag: expected a name/);
      await refused({ keepLast: 0 }).toThrow('keepLast: expected an integer >= 1, got 0');
      for (const clientState of [Number.NaN, { when: new Date() }, () => 1, 1n])
        await refused({ clientState }).toThrow(/clientState: expected only what JSON can hold/);
      await expect(engine.saveCheckpoint('')).rejects.toThrow(/directory: expected a path/);
      engine.backward(engine.forward(tinyBatch(0)));
      await refused({}).toThrow('[rank 0] saveCheckpoint was called between backward() and step(); call it after step()');
      await engine.step();
    });
    expect(readdirSync(directory)).toEqual([]);
  });

  it('a failure beside training is told at `finished`, or else by the next call, and leaves the last checkpoint', async () => {
    await saveOne();
    // As if somebody tidied up too eagerly.
    const fail = async (engine: DeepSpeedEngine) => {
      const saved = await engine.saveCheckpoint(directory, { tag: 'new' });
      for (const name of readdirSync(directory)) if (name.startsWith('.saving')) rmSync(at(name), { recursive: true, force: true });
      return saved;
    };
    await withEngine({}, async (engine) => {
      await expect((await fail(engine)).finished).rejects.toThrow(CheckpointError);
      // Told once.
      await save(engine, { tag: 'fine' });
      await fail(engine);
      await expect(engine.saveCheckpoint(directory)).rejects.toThrow(/can't write .*Checkpoints saved before are untouched/);
      await fail(engine);
      await expect(engine.dispose()).rejects.toThrow(CheckpointError);
    });
    expect(readdirSync(directory).sort()).toEqual(['fine', 'good', 'latest']);
  });
});

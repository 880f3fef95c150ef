import {
  copyFileSync,
  cpSync,
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
import { SafetensorsFile } from '@deepspeed-ts/core';
import { type ConvertProgress, convertDeepSpeedCheckpoint } from 'deepspeed-ts';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it, test } from 'vitest';
import { goldenFolder } from '../golden.js';
import { dict, float, instance, PyFloat, tuple } from '../torch/pickle-writer.js';
import {
  KINDS,
  type SyntheticCheckpoint,
  type SyntheticParameter,
  TAG,
  valuesOf,
  writeDeepSpeedCheckpoint,
  writeUniversalCheckpoint,
} from './writer.js';

let folder: string;
let input: string;
let output: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'convert-'));
  input = join(folder, 'deepspeed');
  output = join(folder, 'ours');
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const convert = (options = {}) => convertDeepSpeedCheckpoint(input, output, options);

/** All tensors of a converted checkpoint, as bytes: `weights/name`, `exp_avg/name`. */
function contents(path: string): Map<string, Buffer> {
  const found = new Map<string, Buffer>();
  for (const name of readdirSync(path).filter((name) => /^(model|optimizer).*\.safetensors$/.test(name))) {
    using file = new SafetensorsFile(join(path, name));
    const bytes = readFileSync(join(path, name));
    const start = 8 + Number(bytes.readBigUInt64LE());
    for (const [tensor, { dtype, data_offsets }] of file.entries) {
      expect(dtype).toBe('F32');
      const key = name.startsWith('model') ? `weights/${tensor}` : tensor.replace(/@0$/, '');
      found.set(key, bytes.subarray(start + data_offsets[0], start + data_offsets[1]));
    }
  }
  return found;
}

const bytesOf = (values: Float32Array) => Buffer.from(values.buffer, values.byteOffset, values.byteLength);

/** What a synthetic checkpoint must yield. */
function expectedContents({ groups, frozen = [] }: SyntheticCheckpoint): Map<string, Buffer> {
  const all = new Map<string, Buffer>();
  for (const parameter of groups.flat())
    for (const kind of ['weights', ...KINDS]) all.set(`${kind}/${parameter.name}`, bytesOf(valuesOf(kind, parameter)));
  for (const parameter of frozen) {
    all.set(`weights/${parameter.name}`, bytesOf(valuesOf('weights', parameter)));
    for (const kind of KINDS) all.set(`${kind}/${parameter.name}`, Buffer.alloc(bytesOf(valuesOf(kind, parameter)).length));
  }
  return all;
}

function same(actual: Map<string, Buffer>, expected: Map<string, Buffer>): void {
  expect([...actual.keys()].sort()).toEqual([...expected.keys()].sort());
  for (const [key, bytes] of expected) expect(actual.get(key)!.equals(bytes), key).toBe(true);
}

const manifestOf = (tag = TAG) => JSON.parse(readFileSync(join(output, tag, 'deepspeed-ts.json'), 'utf8'));

const recorded = [...[0, 1, 2, 3].map((stage) => `stage${stage}-fp32`), ...[1, 2, 3].map((stage) => `stage${stage}-bf16`)];

describe.each(recorded)("DeepSpeed's own checkpoint %s of two ranks", (name) => {
  const golden = goldenFolder('deepspeed-checkpoints', `${name}-world2`);

  test.skipIf(!golden)('yields the weights and moments that DeepSpeed says it has, byte for byte', async () => {
    const result = await convertDeepSpeedCheckpoint(golden!, output);
    expect(result).toMatchObject({ stage: Number(name[5]), worldSize: 2, globalSteps: 5, parameters: 21, elements: 25440, notes: [] });
    const actual = contents(join(output, 'global_step5'));
    using expected = new SafetensorsFile(join(golden!, 'expected.safetensors'));
    const bytes = readFileSync(join(golden!, 'expected.safetensors'));
    const start = 8 + Number(bytes.readBigUInt64LE());
    expect(expected.entries.size).toBe(name === 'stage0-fp32' ? 21 : 63);
    for (const [key, { data_offsets }] of expected.entries) {
      const found = actual.get(key.replace(/^param\./, 'weights/').replace(/^(exp_avg|exp_avg_sq)\./, '$1/'))!;
      expect(found.equals(bytes.subarray(start + data_offsets[0], start + data_offsets[1])), key).toBe(true);
    }
    expect(manifestOf('global_step5')).toMatchObject({
      global_steps: 5,
      skipped_steps: 0,
      train_batch_size: 4,
      dtype: name.endsWith('bf16') ? 'bf16' : 'f32',
      optimizer: { steps: 5, states: ['exp_avg', 'exp_avg_sq'] },
      scheduler: { last_batch_iteration: 4 },
      loss_scaler: null,
      client_state: { epoch: 3, note: 'from client' },
    });
    expect(JSON.parse(readFileSync(join(output, 'global_step5', 'config.json'), 'utf8'))).toMatchObject({
      model_type: 'llama',
      dtype: 'float32',
    });
    expect(readFileSync(join(output, 'latest'), 'utf8')).toBe('global_step5');
  });
});

const odd: SyntheticParameter[][] = [
  [
    { name: 'embed.weight', shape: [7, 5] },
    { name: 'block.0.weight', shape: [53] },
    { name: 'block.1.weight', shape: [3, 3, 3] },
  ],
  [
    { name: 'norm.weight', shape: [1] },
    { name: 'norm.bias', shape: [2] },
    { name: 'scale', shape: [] },
  ],
];

describe.each([0, 1, 2, 3] as const)('a checkpoint of stage %i', (stage) => {
  it.each([1, 3, 4])(
    'of %i ranks, with sizes that they do not divide, two groups, frozen and tied parameters and buffers',
    async (world) => {
      const frozen =
        stage === 0
          ? []
          : [
              { name: 'frozen.weight', shape: [5, 2] },
              { name: 'frozen.bias', shape: [1] },
            ];
      const spec: SyntheticCheckpoint = {
        stage,
        world,
        groups: odd,
        frozen,
        tied: { 'head.weight': 'embed.weight' },
        buffers: [{ name: 'mask', shape: [4] }],
      };
      writeDeepSpeedCheckpoint(input, spec);
      const result = await convert();
      same(contents(join(output, TAG)), expectedContents(spec));
      expect(result).toMatchObject({ stage, worldSize: world, globalSteps: 9 });
      // Stage 3 has no storages to tell tied ones by, but names them.
      expect(result.notes).toContain('head.weight is embed.weight under another name: written once');
      using buffers = new SafetensorsFile(join(output, TAG, 'buffers.safetensors'));
      expect([...buffers.tensor('mask').data]).toEqual([...valuesOf('weights', { name: 'mask', shape: [4] })]);
      const manifest = manifestOf();
      expect(manifest).toMatchObject({ global_steps: 9, skipped_steps: 2, train_batch_size: 3 * world, optimizer: { steps: 7 } });
      expect(manifest.optimizer.groups.map(({ names }: { names: string[] }) => names)).toEqual(
        odd.map((group) => group.map(({ name }) => name)),
      );
      expect(manifest.optimizer.groups[1].options).toEqual({ lr: 5e-4, betas: [0.9, 0.95], weightDecay: 1 });
    },
  );
});

describe('layouts that DeepSpeed has too', () => {
  it.each([1, 2])('stage 3 in sub-groups of %i parameters', async (subGroup) => {
    const spec: SyntheticCheckpoint = { stage: 3, world: 3, groups: odd, subGroup };
    writeDeepSpeedCheckpoint(input, spec);
    await convert();
    same(contents(join(output, TAG)), expectedContents(spec));
    expect(manifestOf().optimizer.groups.map(({ names }: { names: string[] }) => names.length)).toEqual([3, 3]);
  });

  it('stages 1 and 2 without padding', async () => {
    const spec: SyntheticCheckpoint = { stage: 2, world: 4, groups: odd, elastic: true };
    writeDeepSpeedCheckpoint(input, spec);
    await convert();
    same(contents(join(output, TAG)), expectedContents(spec));
  });

  it.each(['flat', 'single'] as const)('f32 weights of fp16 at stage 0, %s', async (fp16) => {
    const spec: SyntheticCheckpoint = { stage: 0, world: 2, groups: fp16 === 'flat' ? [odd.flat()] : odd, fp16 };
    writeDeepSpeedCheckpoint(input, spec);
    await convert();
    same(contents(join(output, TAG)), expectedContents(spec));
    expect(manifestOf().loss_scaler).toEqual({ cur_scale: 1024, cur_iter: 9, last_overflow_iter: 4, cur_hysteresis: 2 });
  });

  it('stage 0 with groups that share a shape is refused, with the way out', async () => {
    const twins = [[{ name: 'a', shape: [4, 2] }], [{ name: 'b', shape: [4, 2] }]];
    writeDeepSpeedCheckpoint(input, { stage: 0, world: 1, groups: twins });
    await expect(convert()).rejects.toThrow(
      /several groups share the shape \[4,2\], so which is which can't be told; save the checkpoint at ZeRO stage 1/,
    );
  });

  it('files of bf16', async () => {
    const spec: SyntheticCheckpoint = { stage: 1, world: 2, groups: odd, bf16: true };
    writeDeepSpeedCheckpoint(input, spec);
    await convert();
    same(contents(join(output, TAG)), expectedContents(spec));
    expect(manifestOf().dtype).toBe('bf16');
  });

  it.each([2, 3] as const)('universal checkpoints made from stage %i', async (stage) => {
    const spec: SyntheticCheckpoint = { stage, world: 4, groups: odd };
    writeUniversalCheckpoint(input, spec);
    await convert();
    same(contents(join(output, TAG)), expectedContents(spec));
    expect(manifestOf().optimizer.steps).toBe(7);
  });

  it("Adagrad's sum of squares, which DeepSpeed calls otherwise on the CPU", async () => {
    const spec: SyntheticCheckpoint = { stage: 1, world: 2, groups: odd, kinds: ['exp_avg_sq'] };
    writeDeepSpeedCheckpoint(input, spec);
    const { states } = await convert();
    expect(states).toEqual(['sum']);
    const found = contents(join(output, TAG));
    for (const parameter of odd.flat())
      expect(found.get(`sum/${parameter.name}`)!.equals(bytesOf(valuesOf('exp_avg_sq', parameter)))).toBe(true);
  });

  it('any sizes on any number of ranks', async () => {
    const parameter = fc.record({ shape: fc.array(fc.integer({ min: 1, max: 6 }), { maxLength: 3 }) });
    const group = fc.array(parameter, { minLength: 1, maxLength: 4 });
    const stages = fc.constantFrom(1 as const, 2 as const, 3 as const);
    await fc.assert(
      fc.asyncProperty(
        fc.array(group, { minLength: 1, maxLength: 3 }),
        stages,
        fc.integer({ min: 1, max: 6 }),
        async (shapes, stage, world) => {
          rmSync(input, { recursive: true, force: true });
          rmSync(output, { recursive: true, force: true });
          const groups = shapes.map((group, g) => group.map(({ shape }, i) => ({ name: `group.${g}.${i}`, shape })));
          const spec = { stage, world, groups };
          writeDeepSpeedCheckpoint(input, spec);
          await convert();
          same(contents(join(output, TAG)), expectedContents(spec));
        },
      ),
      { numRuns: 40 },
    );
  });
});

describe('what goes along', () => {
  it('the state of a dynamic loss scaler', async () => {
    const lossScaler = instance('deepspeed.runtime.fp16.loss_scaler', 'DynamicLossScaler', {
      cur_scale: float(4096),
      cur_iter: 9,
      last_overflow_iter: 3,
      cur_hysteresis: 1,
      dynamic: true,
    });
    writeDeepSpeedCheckpoint(input, { stage: 2, world: 2, groups: odd, lossScaler });
    await convert();
    expect(manifestOf().loss_scaler).toEqual({ cur_scale: 4096, cur_iter: 9, last_overflow_iter: 3, cur_hysteresis: 1 });
  });

  it('client state as JSON, and a note of what JSON can not hold', async () => {
    const client = {
      args: instance('argparse', 'Namespace', { lr: float(0.5), betas: tuple(1, 2) }),
      history: [float(1.5), new PyFloat(Number.NaN)],
      sampler: instance('some.Sampler', 'Sampler', { secret: 1 }),
      big: 2n ** 80n,
    };
    writeDeepSpeedCheckpoint(input, { stage: 1, world: 1, groups: odd, client });
    const { notes } = await convert();
    expect(manifestOf().client_state).toEqual({ args: { lr: 0.5, betas: [1, 2] }, history: [1.5, null] });
    expect(notes).toEqual([
      "client state that JSON can't hold is left out: history[1] (NaN), sampler (an object of some.Sampler.Sampler), big (1208925819614629174706176)",
      expect.stringContaining('there is no config.json'),
    ]);
  });

  it('config.json and the tokenizer of a Hugging Face directory', async () => {
    writeDeepSpeedCheckpoint(input, { stage: 1, world: 1, groups: odd });
    const model = join(folder, 'model');
    mkdirSync(model);
    writeFileSync(join(model, 'config.json'), JSON.stringify({ model_type: 'llama', dtype: 'bfloat16' }));
    writeFileSync(join(model, 'tokenizer.json'), '{}');
    writeFileSync(join(model, 'secrets.txt'), 'no');
    await convert({ model });
    expect(readdirSync(join(output, TAG)).sort()).toEqual([
      'config.json',
      'deepspeed-ts.json',
      'model.safetensors',
      'optimizer-00001-of-00001.safetensors',
      'tokenizer.json',
    ]);
    expect(JSON.parse(readFileSync(join(output, TAG, 'config.json'), 'utf8'))).toEqual({ model_type: 'llama', dtype: 'float32' });
  });

  it('notes of steps that differ, and of a schedule that is not known', async () => {
    writeDeepSpeedCheckpoint(input, { stage: 1, world: 1, groups: odd, steps: [7, 5], scheduler: dict({ last_epoch: 9 }) });
    const { notes } = await convert();
    expect(notes[0]).toBe('parameters have been updated 5 to 7 times; 7 is taken for all');
    expect(notes[1]).toMatch(/load with \{ scheduler: false \}/);
    expect(manifestOf()).toMatchObject({ scheduler: null, optimizer: { steps: 7 } });
  });

  it('progress by file and by byte', async () => {
    writeDeepSpeedCheckpoint(input, { stage: 3, world: 3, groups: odd });
    const seen: ConvertProgress[] = [];
    await convert({ onProgress: (progress: ConvertProgress) => seen.push(progress) });
    const read = seen.filter(({ phase }) => phase === 'read');
    expect(read.map(({ done, total }) => [done, total])).toEqual([0, 1, 2, 3].map((done) => [done, 4]));
    const last = seen.at(-1)!;
    expect([last.phase, last.done]).toEqual(['write', last.total]);
  });
});

describe('what can not be converted', () => {
  const file = (rank: number) => join(input, TAG, `zero_pp_rank_${rank}_mp_rank_00_optim_states.pt`);
  const model = () => join(input, TAG, 'mp_rank_00_model_states.pt');

  /** The message, once it is sure that nothing was left behind. */
  async function refusal(options = {}): Promise<string> {
    const error = await convert(options).then(
      () => new Error('it was converted'),
      (error: Error) => error,
    );
    expect(existsSync(output)).toBe(false);
    expect(readdirSync(folder).filter((name) => name.startsWith('.'))).toEqual([]);
    return error.message;
  }

  beforeEach(() => writeDeepSpeedCheckpoint(input, { stage: 2, world: 3, groups: odd, frozen: [{ name: 'f', shape: [4] }] }));

  it('a rank in between is missing', async () => {
    rmSync(file(1));
    expect(await refusal()).toBe(`${file(1)}: is missing: the checkpoint has files up to rank 2`);
  });

  it('the last rank is missing', async () => {
    rmSync(file(2));
    expect(await refusal()).toMatch(/3 ranks have saved this checkpoint, there are \*_optim_states.pt of 2/);
  });

  it('a rank is left over from another run', async () => {
    copyFileSync(file(2), file(3));
    expect(await refusal()).toMatch(/3 ranks have saved this checkpoint, there are \*_optim_states.pt of 4/);
    renameSync(file(3), file(1).replace('zero_', 'bf16_zero_'));
    expect(await refusal()).toMatch(/files of two checkpoints lie in one directory/);
  });

  it('all optimizer files, or all files, are missing', async () => {
    for (const rank of [0, 1, 2]) rmSync(file(rank));
    expect(await refusal()).toMatch(/there is no \*_optim_states.pt, where ZeRO keeps the f32 weights/);
    rmSync(model());
    expect(await refusal()).toMatch(/there is no checkpoint 'global_step9', which .*latest names; there are none/);
  });

  it('a file is cut or damaged', async () => {
    const whole = readFileSync(file(1));
    truncateSync(file(1), whole.length - 30);
    expect(await refusal()).toMatch(`${file(1)}: there is no directory at its end: the file is truncated`);
    const flipped = Buffer.from(whole);
    flipped[flipped.indexOf(bytesOf(valuesOf('exp_avg', odd[0]![1]!).subarray(20, 30)))]! ^= 4;
    writeFileSync(file(1), flipped);
    expect(await refusal()).toMatch(/'archive\/data\/\d+' is damaged: its CRC-32 is not what was written/);
  });

  it('the tag is not there', async () => {
    expect(await refusal({ tag: 'global_step8' })).toBe(`${input}: there is no checkpoint 'global_step8'; there are global_step9`);
    expect(await refusal({ tag: '../x' })).toMatch(/there is no checkpoint '..\/x'/);
    rmSync(join(input, 'latest'));
    expect(await refusal()).toMatch(/there is neither 'latest' nor a \*_model_states.pt; name one of global_step9 with --tag/);
  });

  it('it was split along more than data', async () => {
    copyFileSync(file(0), file(0).replace('mp_rank_00', 'mp_rank_01'));
    expect(await refusal()).toMatch(/checkpoints of tensor parallelism can't be converted yet/);
    writeFileSync(join(input, TAG, 'layer_00-model_00-model_states.pt'), '');
    expect(await refusal()).toMatch(/checkpoints of pipeline parallelism can't be converted yet/);
  });

  it('it is somewhere else', async () => {
    rmSync(input, { recursive: true });
    expect(await refusal()).toBe(`${input}: there is no such directory`);
  });

  it('files of other numbers of ranks are mixed', async () => {
    const other = join(folder, 'other');
    writeDeepSpeedCheckpoint(other, { stage: 2, world: 4, groups: odd });
    for (const rank of [0, 1, 2]) copyFileSync(file(rank).replace(input, other), file(rank));
    expect(await refusal()).toMatch(/4 ranks have saved this checkpoint, there are \*_optim_states.pt of 3/);
    rmSync(input, { recursive: true });
    writeDeepSpeedCheckpoint(input, { stage: 3, world: 2, groups: odd });
    rmSync(other, { recursive: true });
    writeDeepSpeedCheckpoint(other, { stage: 3, world: 2, groups: [odd[0]!.slice(1), odd[1]!] });
    copyFileSync(file(1).replace(input, other), file(1));
    expect(await refusal()).toMatch(/zero_pp_rank_1_.*beyond fp32_flat_groups: files of another number of ranks/);
  });

  it('the output exists: it stays as it is', async () => {
    mkdirSync(output);
    writeFileSync(join(output, 'precious'), '');
    await expect(convert()).rejects.toThrow(`${output}: exists already; name another output, nothing was changed`);
    expect(readdirSync(output)).toEqual(['precious']);
  });

  it('takes a directory that is a tag by itself, and one by its name', async () => {
    cpSync(join(input, TAG), join(input, 'copy'), { recursive: true });
    await convertDeepSpeedCheckpoint(join(input, TAG), output);
    await convertDeepSpeedCheckpoint(input, join(folder, 'second'), { tag: 'copy' });
    same(contents(join(folder, 'second', 'copy')), contents(join(output, TAG)));
  });
});

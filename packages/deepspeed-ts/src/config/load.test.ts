import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ConfigError, type JsonSchema } from '@deepspeed-ts/core';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, expectTypeOf, it } from 'vitest';
import { loadConfig, SECTIONS } from './index.js';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'deepspeed-config-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

function file(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

function problemsOf(config: string | object, ranks = 2): readonly string[] {
  try {
    loadConfig(config, ranks);
  } catch (error) {
    if (error instanceof ConfigError) return error.problems;
    throw error;
  }
  return [];
}

/** A config in the wild: what DeepSpeed's own tests and examples use. */
const TYPICAL = {
  train_micro_batch_size_per_gpu: 2,
  gradient_accumulation_steps: 3,
  zero_optimization: { stage: 3, overlap_comm: true, contiguous_gradients: true, stage3_prefetch_bucket_size: 5e7 },
  bf16: { enabled: false },
  fp16: { enabled: false, loss_scale_window: 100 },
  flops_profiler: { enabled: false },
  gradient_clipping: 1.0,
  optimizer: { type: 'adamw', params: { lr: 1e-3, betas: [0.9, 0.95], weight_decay: 0.1, torch_adam: true } },
  scheduler: { type: 'WarmupLR', params: { warmup_max_lr: 1e-3, warmup_num_steps: 10 } },
  wall_clock_breakdown: false,
};

describe('loadConfig', () => {
  it('gives a typical config every default and the batch sizes that follow', () => {
    const config = loadConfig(TYPICAL, 2);
    expect(config).toMatchObject({
      train_batch_size: 12,
      train_micro_batch_size_per_gpu: 2,
      gradient_accumulation_steps: 3,
      dataloader_drop_last: false,
      gradient_clipping: 1,
      steps_per_print: null,
      bf16: { enabled: false },
      zero_optimization: { stage: 3, reduce_bucket_size: 5e8 },
      optimizer: { type: 'AdamW', params: { lr: 1e-3, betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.1 } },
      scheduler: { type: 'WarmupLR', params: { warmup_min_lr: 0, warmup_max_lr: 1e-3, warmup_num_steps: 10, warmup_type: 'log' } },
    });
    expect(config.flops_profiler).toMatchObject({ enabled: false, profile_step: 1, module_depth: -1 });
    expectTypeOf(config.train_batch_size).toEqualTypeOf<number>();
    expectTypeOf(config.zero_optimization.stage).toEqualTypeOf<0 | 1 | 2 | 3>();
  });

  it('clips at norm 1 unless told otherwise, as DeepSpeed does', () => {
    expect(loadConfig({ train_batch_size: 2 }, 2).gradient_clipping).toBe(1);
    expect(loadConfig({ train_batch_size: 2, gradient_clipping: 0 }, 2).gradient_clipping).toBe(0);
  });

  it('reads an object, JSON, HJSON and base64 alike', () => {
    const expected = loadConfig(TYPICAL, 2);
    const json = JSON.stringify(TYPICAL);
    expect(loadConfig(file('a.json', json), 2)).toEqual(expected);
    expect(loadConfig(file('a.hjson', `# comment\n${json.slice(1, -1)},\n`), 2)).toEqual(expected);
    expect(loadConfig(Buffer.from(json).toString('base64url'), 2)).toEqual(expected);
    expect(loadConfig(Buffer.from(json).toString('base64'), 2)).toEqual(expected);
  });

  it('says which file is missing and where it looked', () => {
    expect(problemsOf('nowhere/ds.json')).toEqual([
      expect.stringMatching(/^config "nowhere\/ds\.json": no such file; expected a path .*looked in /),
    ]);
    expect(problemsOf(folder)).toEqual([expect.stringContaining('it is a directory')]);
    expect(problemsOf(file('empty.json', ' \n'))).toEqual(['empty.json: the file is empty; expected a JSON or HJSON object']);
  });

  it('gives file, line and column of syntax errors, duplicate keys and wrong values', () => {
    expect(problemsOf(file('s.json', '{\n  "train_batch_size" 4\n}'))).toEqual([
      's.json:2:22: expected ":" after the key "train_batch_size", got "4"',
    ]);
    expect(problemsOf(file('d.json', '{\n  "bf16": {},\n  "bf16": {}\n}'))).toEqual([
      'd.json:3:3: the key "bf16" stands twice, first at 2:3; remove one',
    ]);
    const wrong = '{\n  "train_batch_size": 33,\n  "zero_optimisation": {},\n  "zero_optimization": {\n    "stage": 4\n  }\n}';
    expect(problemsOf(file('w.json', wrong))).toEqual([
      'w.json:2:3: train_batch_size: expected a multiple of ranks = 2, got 33; the nearest are 32 and 34',
      'w.json:3:3: zero_optimisation: unknown key; did you mean "zero_optimization"?',
      expect.stringMatching(/^w\.json:5:5: zero_optimization\.stage: expected 0, 1, 2 or 3 .*, got 4$/),
    ]);
    expect(problemsOf(file('l.json', '[1]'))).toEqual(['a config must be an object, got [1]']);
  });

  it('refuses by name what is not supported, with the reason', () => {
    expect(
      problemsOf({
        train_batch_size: 2,
        fp16: { enabled: true, auto_cast: true },
        optimizer: { type: 'onebitlamb' },
        scheduler: { type: 'WarmUpLR' },
        gradient_allreduce_op: 'sum',
        comet: { enabled: true, project: 'x' },
      }),
    ).toEqual([
      'fp16.auto_cast: expected false (token ids need no cast; a model with float inputs casts them itself, with castTo()), got true',
      'optimizer.type: "onebitlamb" is not supported: compressed communication does not exist yet. Expected "AdamW", "Adam", "SGD", "Adagrad", "Lion", "Lamb", "Muon" or "AdamW8bit"',
      'scheduler.type: expected "WarmupLR", "WarmupDecayLR", "WarmupCosineLR", "OneCycle" or "LRRangeTest", got "WarmUpLR"; did you mean "WarmupLR"?',
      expect.stringMatching(/^gradient_allreduce_op: "sum" is not supported: gradients are averaged/),
      expect.stringMatching(/^comet: not supported: .*write tensorboard files/),
    ]);
  });

  it('refuses precisions that do not go together', () => {
    const refused = (config: object) => problemsOf({ train_batch_size: 2, ...config });
    const both = { bf16: { enabled: true }, fp16: { enabled: true, min_loss_scale: 4, initial_scale_power: 1 } };
    expect(refused(both)).toEqual([
      'fp16.enabled: bf16 and fp16 are both enabled; choose one',
      'fp16.min_loss_scale: expected at most the initial scale, 2^1 = 2, got 4',
    ]);
    expect(refused({ fp16: { enabled: true, loss_scale: Number.POSITIVE_INFINITY } })).toEqual([
      'fp16.loss_scale: expected a number >= 0, got Infinity',
    ]);
    for (const loss_scale of [true, -1]) expect(refused({ fp16: { loss_scale } })).toHaveLength(1);
    expect(refused({ data_types: { grad_accum_dtype: 'fp16' }, communication_data_type: 'fp16' })).toEqual([
      expect.stringMatching(/^data_types\.grad_accum_dtype: gradients in fp16 need the loss scaling/),
    ]);
    expect(refused({ fp16: { enabled: true }, communication_data_type: 'fp32' })).toEqual([
      expect.stringMatching(/^communication_data_type: expected the dtype of gradients, fp16, got fp32/),
    ]);
  });

  it('knows which settings belong to which optimizer', () => {
    const refused = (optimizer: object) => problemsOf({ train_batch_size: 2, optimizer });
    expect(refused({ type: 'sgd', params: { lr: 0.1, momentum: 0.9, nesterov: true } })).toEqual([]);
    expect(refused({ type: 'SGD', params: { betas: [0.9, 0.99], max_grad_norm: 1 } })).toEqual([
      expect.stringMatching(/^optimizer\.params\.betas: unknown key; the keys of "optimizer\.params" are lr, momentum, /),
      'optimizer.params.max_grad_norm: not supported: clipping belongs to the engine; set the top-level key gradient_clipping. Remove it',
    ]);
    expect(refused({ type: 'SGD', params: { nesterov: true } })).toEqual([
      'optimizer.params.nesterov: needs momentum > 0 and dampening 0, got momentum 0 and dampening 0',
    ]);
    expect(refused({ params: { lr: 0.1 } })).toEqual([
      'optimizer.type: missing; expected "AdamW", "Adam", "SGD", "Adagrad", "Lion", "Lamb", "Muon" or "AdamW8bit"',
    ]);
  });

  it('says what a scheduler lacks', () => {
    expect(problemsOf({ train_batch_size: 2, scheduler: { type: 'WarmupCosineLR' } })).toEqual([
      'scheduler.params.total_num_steps: missing; expected an integer >= 1',
    ]);
  });

  it('fills "auto" from the caller only', () => {
    expect(problemsOf({ train_batch_size: 'auto' })).toEqual([expect.stringMatching(/^train_batch_size: "auto" stands for a value/)]);
    const config = loadConfig({ train_batch_size: 'auto' }, 2, { resolveAuto: (path) => (path === 'train_batch_size' ? 8 : undefined) });
    expect(config.train_micro_batch_size_per_gpu).toBe(4);
  });

  it('names the right key for any key of any section, optimizer and scheduler that is one edit away', () => {
    const unsupported = SECTIONS.flatMap((section) => Object.keys(section.unsupported).map((path) => path.split('.')));
    const common = [...SECTIONS.flatMap((section) => pathsOf(section.properties)), ...unsupported];
    const letter = fc.constantFrom(...'abcdefghijklmnopqrstuvwxyz_0123456789');
    const edit = fc.record({ at: fc.nat(), kind: fc.constantFrom('delete', 'insert', 'replace', 'swap'), char: letter });
    const choice = (name: 'optimizer' | 'scheduler') => {
      const branches = SECTIONS.flatMap((section) => section.properties[name as keyof typeof section.properties] as JsonSchema | undefined)
        .flatMap((schema) => schema?.oneOf ?? [])
        .map(({ properties }) => ({ type: properties!.type!.const as string, keys: pathsOf(properties!, [name]) }));
      expect(branches.length).toBeGreaterThan(4);
      return fc.constantFrom(...branches);
    };
    fc.assert(
      // One run edits every key once, all in the same config.
      fc.property(
        choice('optimizer'),
        choice('scheduler'),
        fc.array(edit, { minLength: 400, maxLength: 400 }),
        (optimizer, scheduler, edits) => {
          const keys = [...common, ...optimizer.keys, ...scheduler.keys];
          expect(keys.length).toBeLessThanOrEqual(edits.length);
          const valid = new Set(keys.map((path) => path.join('.')));
          const raw: Record<string, unknown> = {
            train_batch_size: 2,
            optimizer: { type: optimizer.type },
            scheduler: { type: scheduler.type },
          };
          const expected = new Map<string, string>();
          keys.forEach((path, k) => {
            const right = path.at(-1)!;
            const wrong = edited(right, edits[k]!);
            const typo = [...path.slice(0, -1), wrong].join('.');
            if (wrong === '' || valid.has(typo) || expected.has(typo)) return;
            expected.set(typo, path.join('.'));
            let parent = raw;
            for (const name of path.slice(0, -1)) {
              parent[name] ??= {};
              parent = parent[name] as Record<string, unknown>;
            }
            parent[wrong] = 1;
          });
          const problems = problemsOf(raw);
          for (const [typo, right] of expected) {
            expect(
              problems.find((problem) => problem.startsWith(`${typo}: unknown key; did you mean `)),
              typo,
            ).toContain(`"${right}"`);
          }
        },
      ),
      { numRuns: 20 },
    );
  });
});

interface Edit {
  readonly at: number;
  readonly kind: 'delete' | 'insert' | 'replace' | 'swap';
  readonly char: string;
}

/** A word with one of its letters gone, changed or in front of the one before it, or with one more. */
function edited(word: string, { at, kind, char }: Edit): string {
  const i = at % (word.length + Number(kind === 'insert'));
  const [before, letter, after] = [word.slice(0, i), word[i] ?? '', word.slice(i + 1)];
  if (kind === 'insert') return before + char + word.slice(i);
  if (kind === 'swap') return before.slice(0, -1) + letter + before.slice(-1) + after;
  return before + (kind === 'replace' ? char : '') + after;
}

/** Paths of all keys outside alternatives. */
function pathsOf(properties: Readonly<Record<string, JsonSchema>>, at: readonly string[] = []): string[][] {
  return Object.entries(properties).flatMap(([key, schema]) => [[...at, key], ...pathsOf(schema.properties ?? {}, [...at, key])]);
}

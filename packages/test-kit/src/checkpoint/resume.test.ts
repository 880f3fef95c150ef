import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SafetensorsFile, WorldOfOne } from '@deepspeed-ts/core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { runWorld } from '../spawn-world.js';
import { perform, type Task, type TaskResult } from './resumable-rank.js';
import type { Run } from './resumable-run.js';

const directory = mkdtempSync(join(tmpdir(), 'resume-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

async function inWorld(size: number, tasks: readonly Task[]): Promise<TaskResult[]> {
  if (size === 1) return alone(tasks);
  const ranks = await runWorld<TaskResult[], readonly Task[]>(new URL('./resumable-rank.ts', import.meta.url), size, {
    args: tasks,
    timeoutMs: 200_000,
  });
  for (const rank of ranks) expect(rank).toEqual(ranks[0]);
  return ranks[0]!;
}

async function alone(tasks: readonly Task[]): Promise<TaskResult[]> {
  const results: TaskResult[] = [];
  for (const task of tasks) results.push(await perform(task, new WorldOfOne()));
  return results;
}

const EIGHT_BITS = { type: 'AdamW8bit', params: { lr: 1e-2, min_8bit_size: 100, f32_embeddings: false } };
const STAGES = [0, 1, 2, 3] as const;
const odd = (stage: Run['stage'], options: Partial<Run> = {}): Run => ({ model: 'odd', stage, ...options });

describe('a checkpoint', () => {
  const SIZES = [1, 2, 4] as const;
  const saves = SIZES.flatMap((size) => STAGES.map((stage) => ({ size, run: odd(stage), name: `${size}-${stage}` })));
  const others = [
    { size: 2, run: odd(3, { bf16: true }), name: '2-3-bf16' },
    { size: 4, run: odd(2, { fp16: true }), name: '4-2-fp16' },
    { size: 2, run: odd(1, { optimizer: EIGHT_BITS }), name: '2-1-8bit' },
  ];
  const all = [...saves, ...others];
  // One stage of each number of ranks, as the files of all are the same.
  const plain = ['1-0', '2-3', '4-1'].flatMap((name) => STAGES.map((stage) => ({ name, run: odd(stage) })));
  const precisions = ['2-3', '2-3-bf16', '4-2-fp16'].flatMap((name) =>
    [odd(0), odd(1, { fp16: true }), odd(3, { bf16: true })].map((run) => ({ name, run })),
  );
  const loads = [
    ...plain,
    ...precisions,
    ...[0, 3].map((stage) => ({ name: '2-1-8bit', run: odd(stage as 0 | 3, { optimizer: EIGHT_BITS }) })),
  ];
  const saved = new Map<string, string>();
  const loaded = new Map<string, string>();
  const frozen = new Map<string, string>();
  const keyOf = (size: number, { name, run }: (typeof loads)[number]) => `${name} at ${size} ranks: ${JSON.stringify(run)}`;

  /** What the same processes do: save as so many ranks, then load what was saved by so many. */
  async function session(size: number, saving: boolean, from: readonly number[]): Promise<void> {
    const own = all.filter((save) => saving && save.size === size);
    const foreign = loads.filter(({ name }) => from.includes(Number(name[0])));
    const results = await inWorld(size, [
      ...own.map(({ run, name }): Task => ({ run, train: 3, save: join(directory, name) })),
      ...foreign.map(({ name, run }): Task => ({ run, load: join(directory, name) })),
    ]);
    for (const [i, { name }] of own.entries()) {
      saved.set(name, results[i]!.saved);
      frozen.set(name, results[i]!.frozen);
    }
    for (const [i, load] of foreign.entries()) {
      loaded.set(keyOf(size, load), results[own.length + i]!.end);
      frozen.set(keyOf(size, load), results[own.length + i]!.frozen);
    }
  }

  beforeAll(async () => {
    await session(1, true, [1]);
    await session(2, true, [1, 2]);
    await session(4, true, [1, 2, 4]);
    await session(2, false, [4]);
    await session(1, false, [2, 4]);
  }, 400_000);

  test.each(SIZES)('of %i ranks does not show at which stage it was saved', (size) => {
    const files = STAGES.map((stage) => {
      const manifest = readFileSync(join(directory, `${size}-${stage}`, 'global_step3', 'deepspeed-ts.json'), 'utf8');
      return (JSON.parse(manifest) as { files: Record<string, unknown> }).files;
    });
    for (const other of files) expect(other).toEqual(files[0]);
  });

  test.each(SIZES)('loads at any stage and precision on %i ranks, weights and optimizer states to the byte', (size) => {
    for (const load of loads) expect(loaded.get(keyOf(size, load)), keyOf(size, load)).toBe(saved.get(load.name));
    // In the compute dtype, so that a narrower one rounds them.
    for (const load of plain) expect(frozen.get(keyOf(size, load)), keyOf(size, load)).toBe(frozen.get(load.name));
    // Otherwise they would prove nothing: another number of ranks, precision or optimizer is another training.
    expect(new Set(saved.values()).size).toBe(SIZES.length + others.length);
  });

  test('is written by all ranks, whole tensors each, with the index that Hugging Face reads', () => {
    const path = join(directory, '2-3', 'global_step3');
    expect(readdirSync(path).sort()).toEqual([
      'deepspeed-ts.json',
      'model-00001-of-00002.safetensors',
      'model-00002-of-00002.safetensors',
      'model.safetensors.index.json',
      'optimizer-00001-of-00002.safetensors',
      'optimizer-00002-of-00002.safetensors',
    ]);
    const whole = new SafetensorsFile(join(directory, '1-3', 'global_step3', 'model.safetensors'));
    const shards = [1, 2].map((n) => new SafetensorsFile(join(path, `model-0000${n}-of-00002.safetensors`)));
    expect(shards.flatMap(({ names }) => names).sort()).toEqual(whole.names.sort());
    for (const shard of shards) {
      expect(shard.names.length).toBeGreaterThan(0);
      for (const name of shard.names) expect(shard.tensor(name).shape).toEqual(whole.tensor(name).shape);
    }
    for (const file of [whole, ...shards]) file.close();
  });
});

describe('a run of two ranks that is interrupted', () => {
  /** Each with where it is cut, in micro-batches, and the stage that it goes on at. */
  const runs: readonly { what: string; run: Run; cut: number; resumeAt: Run['stage'] }[] = [
    {
      what: 'with dropout, in bf16, within a step',
      run: { model: 'gpt', stage: 3, bf16: true, dropout: 0.2, accumulation: 3 },
      cut: 17,
      resumeAt: 3,
    },
    {
      what: 'within a step whose gradients are whole',
      run: { model: 'gpt', stage: 1, dropout: 0.2, accumulation: 3 },
      cut: 16,
      resumeAt: 2,
    },
    { what: 'with a loss scale that moves', run: { model: 'gpt', stage: 2, fp16: true, accumulation: 3 }, cut: 16, resumeAt: 0 },
    { what: 'with uneven, tied and frozen parameters', run: { model: 'odd', stage: 0 }, cut: 5, resumeAt: 3 },
    {
      what: 'with adapters, in bf16, within a step',
      run: { model: 'lora', stage: 2, bf16: true, dropout: 0.2, accumulation: 3 },
      cut: 17,
      resumeAt: 3,
    },
    { what: 'with adapters on weights in 4 bits', run: { model: 'lora', stage: 3, bf16: true, quantization: 'nf4' }, cut: 5, resumeAt: 1 },
  ];
  const results = new Map<string, [TaskResult, TaskResult]>();
  const total = (run: Run) => 12 * (run.accumulation ?? 1);

  beforeAll(async () => {
    const save = (i: number) => join(directory, `run-${i}`);
    // The first goes through, and saves on its way; the second is another pair of processes.
    const straight = await inWorld(
      2,
      runs.map(({ run, cut }, i) => ({ run, train: cut, save: save(i), trainOn: total(run) - cut })),
    );
    const resumed = await inWorld(
      2,
      runs.map(({ run, cut, resumeAt }, i) => ({ run: { ...run, stage: resumeAt }, load: save(i), train: total(run) - cut })),
    );
    for (const [i, { what }] of runs.entries()) results.set(what, [straight[i]!, resumed[i]!]);
  }, 120_000);

  test.each(runs)('ends with the bits of one that is not: $what', ({ what, run }) => {
    const [straight, resumed] = results.get(what)!;
    expect(resumed).toMatchObject({ end: straight.end, lossScale: straight.lossScale, loader: straight.loader });
    expect(straight.end).not.toBe(straight.saved);
    if (run.fp16) expect(straight.lossScale).toBeGreaterThan(1024);
  });
});

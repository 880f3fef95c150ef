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
  const ranks = await runWorld<TaskResult[], readonly Task[]>(new URL('./resumable-rank.ts', import.meta.url), size, { args: tasks });
  for (const rank of ranks) expect(rank).toEqual(ranks[0]);
  return ranks[0]!;
}

async function alone(tasks: readonly Task[]): Promise<TaskResult[]> {
  const results: TaskResult[] = [];
  for (const task of tasks) results.push(await perform(task, new WorldOfOne()));
  return results;
}

const STAGES = [0, 1, 2, 3] as const;
const odd = (stage: Run['stage'], options: Partial<Run> = {}): Run => ({ model: 'odd', stage, ...options });

describe('a checkpoint', () => {
  const saves = [1, 2].flatMap((size) => [
    ...STAGES.map((stage) => ({ size, run: odd(stage), name: `${size}-${stage}` })),
    { size, run: odd(3, { bf16: true }), name: `${size}-3-bf16` },
  ]);
  const targets: Run[] = [...STAGES.map((stage) => odd(stage)), odd(1, { bf16: true }), odd(3, { bf16: true })];
  // One stage of each, as the files of all are the same.
  const loads = ['1-0', '2-3', '2-3-bf16'].flatMap((name) => targets.map((run) => ({ name, run })));
  const saved = new Map<string, string>();
  const loaded = new Map<number, TaskResult[]>();

  beforeAll(async () => {
    const saving = (size: number): Task[] =>
      saves.filter((save) => save.size === size).map(({ run, name }) => ({ run, train: 3, save: join(directory, name) }));
    const loading: Task[] = loads.map(({ name, run }) => ({ run, load: join(directory, name) }));
    const one = await inWorld(1, saving(1));
    // The same processes of two ranks save and load.
    const two = await inWorld(2, [...saving(2), ...loading]);
    for (const [i, { saved: hash }] of [...one, ...two.slice(0, one.length)].entries()) saved.set(saves[i]!.name, hash);
    loaded.set(2, two.slice(one.length));
    loaded.set(1, await inWorld(1, loading));
  }, 120_000);

  test.each([1, 2])('of %i ranks does not show at which stage it was saved', (size) => {
    const files = STAGES.map((stage) => {
      const manifest = readFileSync(join(directory, `${size}-${stage}`, 'global_step3', 'deepspeed-ts.json'), 'utf8');
      return (JSON.parse(manifest) as { files: Record<string, { sha256: string }> }).files;
    });
    for (const other of files) expect(other).toEqual(files[0]);
  });

  test.each([1, 2])('loads at any stage and precision on %i ranks, weights and optimizer states to the byte', (size) => {
    expect(loaded.get(size)!.map(({ end }) => end)).toEqual(loads.map(({ name }) => saved.get(name)));
    expect(new Set(saved.values()).size).toBe(4);
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

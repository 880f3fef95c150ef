import { plan } from 'deepspeed-ts';
import { describe, expect, test } from 'vitest';
import { runWorld } from '../spawn-world.js';
import type { PlanRankArgs } from './plan-rank.js';
import { adapterSweep, type MeasuredMemory, nameOf, type PlannedRun, planOptions, sweep } from './planned-run.js';

/** How far a plan may be from the allocator's own peak. */
const TOLERANCE = 0.02;

const measured = (runs: readonly PlannedRun[], world: number): Promise<MeasuredMemory[][]> =>
  runWorld<MeasuredMemory[], PlanRankArgs>(new URL('./plan-rank.ts', import.meta.url), world, {
    args: { runs, device: 'cpu' },
    env: { DEEPSPEED_TS_THREADS: '1' },
    timeoutMs: 180_000,
  });

/** Plans that are further off than they may be, as sentences. */
async function wrong(runs: readonly PlannedRun[], world: number): Promise<string[]> {
  const ranks = await measured(runs, world);
  const complaints: string[] = [];
  for (const [i, run] of runs.entries()) {
    const planned = await plan(planOptions(run, world, 'cpu'));
    for (const [rank, results] of ranks.entries()) {
      const { peak, workspace } = results[i]!;
      const off = Math.abs(planned.peak.bytes - peak) / peak;
      if (!(off <= TOLERANCE)) complaints.push(`${nameOf(run, world)}: planned ${planned.peak.bytes}, rank ${rank} had ${peak}`);
      if (workspace > planned.workspace) complaints.push(`${nameOf(run, world)}: workspace of ${workspace}, planned ${planned.workspace}`);
    }
  }
  return complaints;
}

describe('a planned peak is within 2% of what the allocator counts', () => {
  test.each([1, 2, 3, 4])(
    'over every stage, precision and family, accumulation and recomputing, with %i real ranks',
    async (world) => {
      expect(await wrong(sweep(world), world)).toEqual([]);
    },
    240_000,
  );

  test.each([1, 2])(
    'with adapters on frozen weights, kept as they are or as codes, with %i real ranks',
    async (world) => {
      expect(await wrong(adapterSweep(), world)).toEqual([]);
    },
    120_000,
  );

  test('whatever else of a config decides about memory', async () => {
    const base: PlannedRun = { family: 'gpt2', stage: 2, precision: 'bf16', accumulation: 2, recompute: false };
    const zero = (stage: number, more: object) => ({ zero_optimization: { stage, ...more } });
    const runs: PlannedRun[] = [
      { ...base, config: { optimizer: { type: 'SGD', params: { lr: 0.1 } } } },
      { ...base, config: { optimizer: { type: 'Lion', params: { lr: 1e-3 } } } },
      { ...base, config: { data_types: { grad_accum_dtype: 'fp32' } } },
      { ...base, config: zero(2, { overlap_comm: false }) },
      { ...base, stage: 3, config: zero(3, { stage3_prefetch_bucket_size: 0 }) },
      { ...base, family: 'llama', stage: 3, config: zero(3, { overlap_comm: false }) },
      { ...base, dropout: 0.1, recompute: true },
      { ...base, family: 'mixtral' },
      { ...base, family: 'qwen3' },
      { ...base, family: 'gemma2' },
      { ...base, family: 'gpt_neox' },
      { ...base, family: 'mixtral', stage: 3, precision: 'fp32', recompute: true },
      { ...base, config: { activation_checkpointing: { number_checkpoints: 2 } } },
      { ...base, stage: 3, config: { activation_checkpointing: { cpu_checkpointing: true } } },
      { ...base, config: { bf16: { enabled: true, bf16_master_weights_and_grads: true, bf16_optimizer_states: true } } },
      ...['Lamb', 'Muon', 'AdamW8bit'].map((type) => ({ ...base, config: { optimizer: { type, params: { lr: 1e-3 } } } })),
    ];
    expect(await wrong(runs, 2)).toEqual([]);
  }, 120_000);
});

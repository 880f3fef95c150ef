import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { DeviceName } from 'deepspeed-ts';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type RankOutcome, spawnWorld } from '../spawn-world.js';
import { CONTEXT, VOCABULARY } from '../zero/models.js';
import type { ObservedArgs, ObservedResult } from './observed-rank.js';

interface TraceEvent {
  readonly name: string;
  readonly cat: string;
  readonly ph: string;
  readonly ts: number;
  readonly dur: number;
  readonly pid: number;
  readonly tid: number;
  readonly args?: { readonly name?: string; readonly step?: number; readonly bytes?: number };
}

/** Two ranks that train on such devices while all that can look on does; what it sees. */
export function describeObservedRun(device: DeviceName): void {
  const folder = mkdtempSync(join(tmpdir(), 'observed-'));
  let outcomes: RankOutcome<ObservedResult>[];
  let ranks: ObservedResult[];

  beforeAll(async () => {
    const args = { folder, device };
    const world = await spawnWorld<ObservedResult, ObservedArgs>(new URL('./observed-rank.ts', import.meta.url), 2, { args });
    outcomes = await world.outcomes();
    for (const { value, error, output } of outcomes) expect(value, error?.message ?? output).toBeDefined();
    ranks = outcomes.map(({ value }) => value!);
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  test('train to the same bits as without', () => {
    const [hash] = ranks[0]!.hashes;
    for (const { hashes } of ranks) expect(hashes).toEqual([hash, hash]);
  });

  test('speak through rank 0 alone', () => {
    const [first, second] = outcomes.map(({ output }) => output);
    expect(first).toMatch(/^step 2 .*\nstep 4 |^step 4 /m);
    expect(first).toMatch(/^communication \(bandwidths/m);
    expect(second).toBe('');
    expect(readdirSync(join(folder, 'DeepSpeedJobName')).filter((name) => name.startsWith('events.'))).toHaveLength(1);
  });

  test('know what each collective of a stage 3 step was for, and count them all', () => {
    for (const { rows } of ranks) {
      // Two micro-batches in each of five steps, five units reduced once in each.
      const reduced = rows.filter(({ op }) => op === 'reduce_scatter');
      expect(reduced.map(({ tag }) => tag).sort()).toEqual([0, 1, 2, 3, 4].map((unit) => expect.stringMatching(`^reduce ${unit} `)));
      for (const { count } of reduced) expect(count).toBe(10);
      expect(rows.find(({ tag }) => tag === 'gradient norm')).toMatchObject({ op: 'all_gather', count: 5 });
      expect(rows.find(({ tag }) => tag === 'loss')).toMatchObject({ op: 'all_reduce', bytes: 4, count: 10 });
      for (const { totalMs, count, waitMs } of rows) expect(totalMs).toBeGreaterThanOrEqual(count * waitMs);
    }
  });

  test('give bandwidths in the conventions of nccl-tests', () => {
    for (const { op, bytes, totalMs, count, waitMs, algorithmGBps, busGBps } of ranks.flatMap(({ rows }) => rows)) {
      // Of two ranks each sends and receives half of what all of them gather or scatter.
      expect(busGBps, op).toBeCloseTo((op === 'all_gather' || op === 'reduce_scatter' ? 0.5 : 1) * algorithmGBps, 9);
      const moving = totalMs / count - waitMs;
      if (moving > 0) expect(algorithmGBps * moving, op).toBeCloseTo(bytes / 1e6, 9);
    }
  });

  test('agree on how far apart they come to each, and on who comes last', () => {
    const times = ranks.map(({ rows }) => rows.map(({ spreadMs, lastRank }) => ({ spreadMs, lastRank })));
    expect(times[1]).toEqual(times[0]);
    for (const { spreadMs, lastRank } of times[0]!) {
      expect(spreadMs).toBeGreaterThanOrEqual(0);
      expect([0, 1]).toContain(lastRank);
    }
  });

  test('count the same FLOPs, twice as many backward as forward', () => {
    const shape = { layers: 2, dim: 16 };
    const products = shape.layers * 12 * shape.dim ** 2 + VOCABULARY * shape.dim;
    const forward = 2 * CONTEXT * (2 * products + 2 * shape.layers * shape.dim * CONTEXT);
    for (const { flops } of ranks) expect(flops).toEqual([forward, 2 * forward]);
    const { step, model } = JSON.parse(readFileSync(join(folder, 'profile.json'), 'utf8'));
    expect({ step, flops: model.forward.flops }).toEqual({ step: 2, flops: forward });
  });

  describe('leave traces', () => {
    const traceOf = (rank: number): TraceEvent[] => {
      const { traceEvents } = JSON.parse(readFileSync(join(folder, 'traces', `trace-rank${rank}.json`), 'utf8'));
      return traceEvents;
    };

    test('with a process for each rank, its lines named, of the steps asked for', () => {
      for (const rank of [0, 1]) {
        const events = traceOf(rank);
        expect(new Set(events.map(({ pid }) => pid))).toEqual(new Set([rank]));
        const names = events.filter(({ ph }) => ph === 'M').map(({ args }) => args!.name);
        expect(names).toEqual([`rank ${rank}`, 'compute', 'communication']);
        const phases = events.filter(({ cat }) => cat === 'phase').map(({ name, args }) => `${name} ${args!.step}`);
        expect(phases).toEqual(
          [3, 4].flatMap((step) => ['forward', 'backward', 'forward', 'backward', 'step'].map((phase) => `${phase} ${step}`)),
        );
      }
    });

    test('in which what shares a line nests', () => {
      for (const rank of [0, 1]) {
        for (const tid of [1, 2]) {
          const line = traceOf(rank).filter(({ ph, tid: its }) => ph === 'X' && its === tid);
          expect(line.length).toBeGreaterThan(10);
          for (const a of line) {
            expect(a.dur, a.name).toBeGreaterThanOrEqual(0);
            for (const b of line) {
              const [aEnd, bEnd] = [a.ts + a.dur, b.ts + b.dur];
              const apart = aEnd <= b.ts || bEnd <= a.ts;
              const within = (a.ts >= b.ts && aEnd <= bEnd) || (b.ts >= a.ts && bEnd <= aEnd);
              expect(apart || within, `${a.name} [${a.ts}, ${aEnd}] and ${b.name} [${b.ts}, ${bEnd}]`).toBe(true);
            }
          }
        }
      }
    });

    test('of units in their phases, and of the same collectives in the same order on both ranks', () => {
      const events = traceOf(0);
      const phases = events.filter(({ cat }) => cat === 'phase');
      for (const pass of ['forward', 'backward']) {
        const units = events.filter(({ cat, tid }) => cat === pass && tid === 1);
        expect(new Set(units.map(({ name }) => name))).toEqual(
          new Set(['transformer.wte', 'transformer.wpe', 'transformer.h.0', 'transformer.h.1']),
        );
        for (const { ts, dur } of units) {
          const phase = phases.find((other) => other.name === pass && other.ts <= ts && ts + dur <= other.ts + other.dur);
          expect(phase).toBeDefined();
        }
      }
      const collectives = [0, 1].map((rank) =>
        traceOf(rank)
          .filter(({ cat }) => cat === 'collective')
          .map(({ name, args }) => `${name} ${args!.bytes}`),
      );
      // What the step before has gathered ahead may have begun before the trace on one of them.
      const [first, second] = collectives.map((names) => names.slice(names.findIndex((name) => name.startsWith('reduce_scatter'))));
      expect(second).toEqual(first);
      expect(collectives[0]!.filter((name) => name.startsWith('reduce_scatter reduce'))).toHaveLength(2 * 2 * 5);
    });
  });
}

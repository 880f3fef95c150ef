import { type Communicator, namedParameters, uniforms } from '@deepspeed-ts/core';
import { connect } from '@deepspeed-ts/kernels-cpu';
import type { DeepSpeedEngine } from 'deepspeed-ts';
import type { RankContext } from '../spawn-world.js';
import { batchesOf, close, hashOf, openEngine, type TrainingRun } from '../zero/training-run.js';

export interface DebugArgs {
  readonly runs: Readonly<Record<string, TrainingRun>>;
}

/** Everything that can be read, by parameter. */
export type Seen = Readonly<Record<string, Readonly<Record<string, readonly number[] | null>>>>;

/** What a rank sees and does in one run. */
export interface DebugResult {
  /** After two steps and the first backward pass of the third. */
  readonly seen: Seen;
  /** The parts of this rank at that time, with where they begin. */
  readonly parts: Seen;
  /** Master weights at that time, as they are exported. */
  readonly exported: Readonly<Record<string, readonly number[]>>;
  /** Norm of that step, which ran with these gradients. */
  readonly norm: number;
  /** What the engine gave back of what was set just before, and what it was set to. */
  readonly back: readonly (readonly [name: string, got: readonly number[], set: readonly number[]])[];
  readonly losses: readonly number[];
  readonly hash: string;
}

export interface DebugOutcome {
  readonly runs: Readonly<Record<string, DebugResult>>;
  /** Messages of calls that only some ranks got wrong. */
  readonly errors: readonly string[];
}

export default async function rank({ args }: RankContext<DebugArgs>): Promise<DebugOutcome> {
  const communicator = await connect();
  const runs: Record<string, DebugResult> = {};
  for (const [name, run] of Object.entries(args.runs)) runs[name] = await debugRun(run, communicator);
  const errors = await mistakes(Object.values(args.runs)[0]!, communicator);
  await communicator.close();
  return { runs, errors };
}

const states = ['exp_avg', 'exp_avg_sq'] as const;

/** Trains, reads all, trains on, changes things, and trains on. */
export async function debugRun(run: TrainingRun, communicator: Communicator): Promise<DebugResult> {
  const { rank } = communicator;
  const engine = await openEngine(run, communicator);
  const { debug } = engine;
  const losses: number[] = [];
  const train = async (step: number) => void losses.push(await engine.trainBatch(batchesOf(run, step, rank)));
  for (const step of [0, 1]) await train(step);
  backward(engine, run, 2);
  const seen = await readAll(engine);
  const parts = await readParts(engine);
  const exported: Record<string, number[]> = {};
  for await (const [name, { data }] of engine.weights()) exported[name] = [...data];
  await engine.step();
  const norm = engine.globalGradNorm;

  const back: [string, number[], number[]][] = [];
  // Frozen ones have no optimizer state, and weights in the compute dtype.
  const names = [...namedParameters(engine.model)].filter(([, { requiresGrad }]) => requiresGrad).map(([name]) => name);
  for (const [i, name] of names.entries()) {
    if (i % 3 === 2) continue;
    const { length } = exported[name]!;
    const values = numbers(i, length);
    await debug.setFullParameter(name, values);
    back.push([name, [...(await debug.getFullParameter(name)).data], values]);
    for (const [s, state] of states.entries()) {
      const squares = numbers(100 + 10 * i + s, length).map((x) => x * x);
      await debug.setFullOptimizerState(name, state, squares);
      back.push([`${state} of ${name}`, [...(await debug.getFullOptimizerState(name, state))!.data], squares]);
    }
  }
  await train(3);
  // Ranks set their own parts, and a gradient of their own choice.
  for (const name of names.filter((_, i) => i % 2 === 0)) {
    const { start, data } = await debug.getLocalParameter(name);
    await debug.setLocalParameter(
      name,
      [...data].map((x, i) => x + (start + i) / 4096),
    );
    const state = (await debug.getLocalOptimizerState(name, 'exp_avg'))!;
    await debug.setLocalOptimizerState(
      name,
      'exp_avg',
      [...state.data].map((x) => 2 * x),
    );
  }
  backward(engine, run, 4);
  for (const [i, name] of names.entries()) {
    const gradient = await debug.getFullGradient(name);
    if (!gradient) continue;
    // Exact in every dtype.
    const values = Array.from({ length: gradient.data.length }, (_, j) => ((i + j) % 7) / 32);
    if (i % 2 === 0) await debug.setFullGradient(name, values);
    else {
      const part = (await debug.getLocalGradient(name))!;
      await debug.setLocalGradient(name, values.slice(part.start, part.start + part.data.length));
    }
    back.push([`gradient of ${name}`, [...(await debug.getFullGradient(name))!.data], values]);
  }
  await engine.step();
  await train(5);
  const hash = await hashOf(engine);
  await close(engine);
  return { seen, parts, exported, norm, back, losses, hash };
}

function backward(engine: DeepSpeedEngine, run: TrainingRun, step: number): void {
  for (const batch of batchesOf(run, step, engine.rank)) engine.backward(engine.forward(batch));
}

async function readAll({ model, debug }: DeepSpeedEngine): Promise<Seen> {
  const seen: Record<string, Record<string, number[] | null>> = {};
  for (const [name] of namedParameters(model)) {
    const gradient = await debug.getFullGradient(name);
    seen[name] = { weights: [...(await debug.getFullParameter(name)).data], gradient: gradient ? [...gradient.data] : null };
    for (const state of states) {
      const values = await debug.getFullOptimizerState(name, state);
      seen[name]![state] = values ? [...values.data] : null;
    }
  }
  return seen;
}

async function readParts({ model, debug }: DeepSpeedEngine): Promise<Seen> {
  const parts: Record<string, Record<string, number[] | null>> = {};
  for (const [name] of namedParameters(model)) {
    const weights = await debug.getLocalParameter(name);
    const gradient = await debug.getLocalGradient(name);
    parts[name] = { start: [weights.start], weights: [...weights.data], gradient: gradient ? [...gradient.data] : null };
    for (const state of states) {
      const values = await debug.getLocalOptimizerState(name, state);
      parts[name]![state] = values ? [...values.data] : null;
    }
  }
  return parts;
}

/** Values that float32 holds. */
function numbers(stream: number, length: number): number[] {
  return Array.from(uniforms({ seed: 5, stream }, 0, length), (u) => Math.fround(Math.round((u - 0.5) * 1024) / 1024));
}

/** Calls that are wrong on the last rank only. */
async function mistakes(run: TrainingRun, communicator: Communicator): Promise<string[]> {
  const engine = await openEngine(run, communicator);
  const { debug } = engine;
  const last = communicator.rank === communicator.size - 1;
  const [[one, { numel }], [two]] = [...namedParameters(engine.model)] as [[string, { numel: number }], [string, unknown]];
  const own = (await debug.getLocalParameter(one)).data.length;
  const errors: string[] = [];
  const wrong = [
    () => debug.getFullParameter(last ? `${one}x` : one),
    () => debug.getFullParameter(last ? two : one),
    () => debug.setFullParameter(one, new Float32Array(last ? numel + 1 : numel)),
    () => debug.setLocalParameter(one, new Float32Array(last ? own + 1 : own)),
    () => debug.getFullOptimizerState(one, last ? 'exp_avgsq' : 'exp_avg_sq'),
    () => debug.getFullOptimizerState(one, 'weights'),
    () => debug.setFullGradient(one, new Float32Array(numel)),
  ];
  for (const call of wrong) {
    await call().then(
      () => errors.push('no error'),
      (error: Error) => errors.push(error.message),
    );
  }
  await close(engine);
  return errors;
}

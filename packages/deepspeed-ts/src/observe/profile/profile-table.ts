import { countText, table } from '../table.js';
import type { ModelProfile, ModuleProfile } from './profile.js';

export interface ProfileTableOptions {
  /** Levels of the tree that are shown below the model; -1: all. */
  readonly depth: number;
  /** Modules of each level that are shown in the summary. */
  readonly top: number;
  /** Show the tree as well. */
  readonly detailed: boolean;
}

/** The profile for people: totals, the most expensive modules of each level, and the tree. */
export function formatProfile(profile: ModelProfile, { depth, top, detailed }: ProfileTableOptions): string {
  const { model, step, ranks, microBatchSize, microBatches, stepMilliseconds } = profile;
  const pass = (name: string, { flops, milliseconds }: ModuleProfile['forward']) =>
    `  ${name.padEnd(10)} ${countText(flops)}FLOP  ${milliseconds.toFixed(2)} ms  ${rate(flops, milliseconds)}`;
  const lines = [
    `profile of step ${step} on rank 0 of ${ranks}: ${microBatches} micro-batch(es) of ${microBatchSize}, the mean of one`,
    `  parameters ${countText(model.parameters)}`,
    pass('forward', model.forward),
    pass('backward', model.backward),
    ...(model.recompute.milliseconds > 0 ? [pass('recompute', model.recompute)] : []),
    `  optimizer  ${stepMilliseconds.toFixed(2)} ms for the step`,
    "FLOP are the model's: a multiply-add counts 2, elementwise work and kernels' own recomputation do not count",
    '',
    `most expensive modules of each level, by time:`,
    ...levels(model, depth).map((level, i) => `  depth ${i}: ${mostExpensive(level, top).join(', ')}`),
  ];
  if (detailed) lines.push('', tree(model, depth));
  return lines.join('\n');
}

function tree(model: ModuleProfile, depth: number): string {
  const cells: string[][] = [];
  const visit = (module: ModuleProfile, level: number) => {
    const { path, type, parameters, forward, backward } = module;
    cells.push([
      `${'  '.repeat(level)}${level === 0 ? type : `${path} (${type})`}`,
      countText(parameters),
      countText(forward.flops),
      forward.milliseconds.toFixed(3),
      countText(backward.flops),
      backward.milliseconds.toFixed(3),
      share(timeOf(module), timeOf(model)),
      rate(forward.flops + backward.flops, forward.milliseconds + backward.milliseconds),
    ]);
    if (depth < 0 || level < depth) for (const child of ranIn(module)) visit(child, level + 1);
  };
  visit(model, 0);
  return table(['module', 'parameters', 'forward FLOP', 'ms', 'backward FLOP', 'ms', 'time', 'rate'], cells);
}

function levels(model: ModuleProfile, depth: number): ModuleProfile[][] {
  const all: ModuleProfile[][] = [];
  for (let level = [model]; level.length > 0 && (depth < 0 || all.length <= depth); level = level.flatMap(ranIn)) all.push(level);
  return all;
}

/** Modules whose forward pass ran by itself; a fused one does the work of those in it. */
function ranIn({ modules }: ModuleProfile): readonly ModuleProfile[] {
  return modules.filter((module) => timeOf(module) > 0);
}

/** By class, as DeepSpeed adds them up: twelve blocks are one entry. */
function mostExpensive(level: readonly ModuleProfile[], top: number): string[] {
  const times = new Map<string, number>();
  for (const module of level) times.set(module.type, (times.get(module.type) ?? 0) + timeOf(module));
  const sorted = [...times].sort(([, a], [, b]) => b - a);
  return sorted.slice(0, top).map(([type, milliseconds]) => `${type} ${milliseconds.toFixed(2)} ms`);
}

function timeOf({ forward, backward, recompute }: ModuleProfile): number {
  return forward.milliseconds + backward.milliseconds + recompute.milliseconds;
}

function share(part: number, whole: number): string {
  return `${((100 * part) / Math.max(whole, Number.MIN_VALUE)).toFixed(1)}%`;
}

function rate(flops: number, milliseconds: number): string {
  return `${countText(milliseconds > 0 ? (flops * 1000) / milliseconds : 0)}FLOP/s`;
}

import { type Module, Parameter } from '@deepspeed-ts/core';
import { type ModuleCost, type ModuleNode, PASSES, type Pass } from './module-clock.js';

/** What a module and all in it cost in one micro-batch. Plain data. */
export interface ModuleProfile {
  /** Dotted path; '' is the model. */
  readonly path: string;
  /** Name of its class. */
  readonly type: string;
  /** Elements of its parameters; one that several modules share counts in each, once in what holds them all. */
  readonly parameters: number;
  /** Model FLOPs and measured milliseconds by pass. */
  readonly forward: Readonly<ModuleCost>;
  readonly backward: Readonly<ModuleCost>;
  /** The forward pass again, where activations are recomputed. */
  readonly recompute: Readonly<ModuleCost>;
  readonly modules: readonly ModuleProfile[];
}

export interface ModelProfile {
  /** The step that was profiled, counted from 1. */
  readonly step: number;
  readonly ranks: number;
  readonly microBatchSize: number;
  readonly microBatches: number;
  /** Milliseconds of the optimizer step, with what is left of communication. */
  readonly stepMilliseconds: number;
  readonly model: ModuleProfile;
}

/** Adds modules up from the leaves, and divides by the micro-batches that ran. */
export function profileOf(node: ModuleNode, microBatches: number): ModuleProfile {
  const modules = node.children.map((child) => profileOf(child, microBatches));
  const total = (pass: Pass): ModuleCost => ({
    flops: node.cost[pass].flops / microBatches + sum(modules.map((module) => module[pass].flops)),
    milliseconds: node.cost[pass].milliseconds / microBatches + sum(modules.map((module) => module[pass].milliseconds)),
  });
  const [forward, backward, recompute] = PASSES.map(total) as [ModuleCost, ModuleCost, ModuleCost];
  const parameters = sum([...parametersIn(node.module)].map(({ numel }) => numel));
  return { path: node.path, type: node.module.constructor.name, parameters, forward, backward, recompute, modules };
}

function parametersIn(module: Module, found = new Set<Parameter>()): Set<Parameter> {
  for (const [, child] of module.children()) {
    if (child instanceof Parameter) found.add(child);
    else if (Array.isArray(child)) for (const item of child as Module[]) parametersIn(item, found);
    else parametersIn(child as Module, found);
  }
  return found;
}

const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);

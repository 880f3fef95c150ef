import type { Module, Parameter } from '@deepspeed-ts/core';
import { namedParameters } from '@deepspeed-ts/core';
import type { AdamOptions } from '@deepspeed-ts/zero';
import type { LRScheduler } from '../schedules/index.js';

/** What a group of parameters does otherwise than the config's optimizer says. */
export type GroupOverrides = Partial<Pick<AdamOptions, 'lr' | 'betas' | 'eps' | 'weightDecay'>>;

/** Sorts parameters into groups: those that get equal overrides are one group. */
export type ParameterGroups = (name: string, parameter: Parameter) => GroupOverrides | undefined;

/** Parameters that are updated with the same settings. */
export interface ParameterGroup {
  readonly names: readonly string[];
  /** In force for the next step. */
  readonly options: AdamOptions;
}

/** The settings of every parameter, moved along by the learning-rate schedule. */
export class EngineOptimizer {
  readonly #groups: { names: string[]; options: AdamOptions }[] = [];
  readonly #groupOf = new Map<Parameter, number>();

  constructor(model: Module, defaults: AdamOptions, groupsOf: ParameterGroups = () => undefined) {
    const byKey = new Map<string, number>();
    for (const [name, parameter] of namedParameters(model)) {
      const overrides = groupsOf(name, parameter) ?? {};
      const key = JSON.stringify(Object.entries(overrides).sort(([a], [b]) => a.localeCompare(b)));
      let index = byKey.get(key);
      if (index === undefined) {
        index = this.#groups.push({ names: [], options: { ...defaults, ...overrides } }) - 1;
        byKey.set(key, index);
      }
      this.#groups[index]!.names.push(name);
      this.#groupOf.set(parameter, index);
    }
  }

  get groups(): readonly ParameterGroup[] {
    return this.#groups;
  }

  /** Learning rates of the next step, by group. */
  get lr(): number[] {
    return this.#groups.map(({ options }) => options.lr);
  }

  optionsOf(parameter: Parameter): AdamOptions {
    return this.#groups[this.#groupOf.get(parameter)!]!.options;
  }

  /** Takes over what the schedule says for the next step. */
  follow(scheduler: LRScheduler): void {
    const { lr, betas } = scheduler;
    for (const [i, group] of this.#groups.entries()) group.options = { ...group.options, lr: lr[i]!, ...(betas && { betas }) };
  }
}

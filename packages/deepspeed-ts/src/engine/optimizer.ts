import { ConfigError, DeepSpeedError, type Module, namedParameters, type Parameter } from '@deepspeed-ts/core';
import type { AdamOptions, OptimizerOptions } from '@deepspeed-ts/zero';
import type { LRScheduler } from '../schedules/index.js';

/** What a group of parameters does otherwise than the config's optimizer says; only settings that it has. */
export type GroupOverrides = Partial<Pick<AdamOptions, 'lr' | 'betas' | 'eps' | 'weightDecay'>>;

/** Sorts parameters into groups: those that get equal overrides are one group. */
export type ParameterGroups = (name: string, parameter: Parameter) => GroupOverrides | undefined;

/** Parameters that are updated with the same settings. */
export interface ParameterGroup {
  readonly names: readonly string[];
  /** In force for the next step. */
  readonly options: OptimizerOptions;
}

/** The settings of every parameter, moved along by the learning-rate schedule. */
export class EngineOptimizer {
  readonly #groups: { names: string[]; options: OptimizerOptions }[] = [];
  readonly #groupOf = new Map<Parameter, number>();

  constructor(
    model: Module,
    defaults: OptimizerOptions,
    groupsOf: ParameterGroups = () => undefined,
    /** The config's name for the algorithm, or its own. */
    readonly type = 'unknown',
  ) {
    const byKey = new Map<string, number>();
    for (const [name, parameter] of namedParameters(model)) {
      const overrides = groupsOf(name, parameter) ?? {};
      checkOverrides(name, overrides, defaults);
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

  /** By group: both betas, or the momentum of SGD. */
  get momentum(): (number | readonly [number, number] | undefined)[] {
    return this.#groups.map(({ options }) => options.betas ?? (options as { momentum?: number }).momentum);
  }

  /** One for all groups, or one for each. A schedule sets its own after the next step. */
  setLr(lr: number | readonly number[]): void {
    const all = typeof lr === 'number' ? this.#groups.map(() => lr) : lr;
    if (all.length !== this.#groups.length || !all.every((value) => Number.isFinite(value) && value >= 0)) {
      const expected = `a number >= 0, or one for each of ${this.#groups.length} parameter groups`;
      throw new DeepSpeedError('ERR_LEARNING_RATE', `[setLr] expected ${expected}, got ${JSON.stringify(lr)}`);
    }
    for (const [i, group] of this.#groups.entries()) group.options = { ...group.options, lr: all[i]! };
  }

  optionsOf(parameter: Parameter): OptimizerOptions {
    return this.#groups[this.#groupOf.get(parameter)!]!.options;
  }

  /** Takes over what the schedule says for the next step. Betas only where the optimizer has them, as in DeepSpeed. */
  follow(scheduler: LRScheduler): void {
    const { lr, betas } = scheduler;
    for (const [i, group] of this.#groups.entries()) {
      group.options = { ...group.options, lr: lr[i]!, ...(betas && group.options.betas && { betas }) };
    }
  }
}

function checkOverrides(name: string, overrides: GroupOverrides, defaults: OptimizerOptions): void {
  for (const key of Object.keys(overrides)) {
    if (key in defaults) continue;
    throw new ConfigError([
      `parameterGroups: the optimizer of the config has no setting "${key}", which ${name} is given; its settings are ${Object.keys(defaults).join(', ')}`,
    ]);
  }
}

import type { FromSchema } from '@deepspeed-ts/core';
import { adagrad, adam, type FlatOptimizer, lion, type OptimizerOptions, plainSgd, sgd } from '@deepspeed-ts/zero';
import { adagradParams, adamParams, lionParams, sgdParams } from './params.js';

const ONE_BIT = 'compressed communication does not exist yet';
const MUP = 'it needs the mup package of Python';

/** The `optimizer` key of a config: one alternative per optimizer, told apart by `type`. */
export const optimizerSchema = {
  type: 'object',
  description:
    'The optimizer that the engine makes. Case does not matter. As in DeepSpeed "Adam" decays weights the AdamW way unless adam_w_mode is false.',
  discriminator: { propertyName: 'type' },
  ignoreCase: true,
  refused: {
    Lamb: 'it needs norms per layer where ZeRO has slices',
    Muon: 'it needs whole matrices where ZeRO has slices',
    OneBitAdam: ONE_BIT,
    ZeroOneAdam: ONE_BIT,
    OneBitLamb: ONE_BIT,
    MuAdam: MUP,
    MuAdamW: MUP,
    MuSGD: MUP,
  },
  oneOf: [
    { properties: { type: { const: 'AdamW' }, params: adamParams } },
    { properties: { type: { const: 'Adam' }, params: adamParams } },
    { properties: { type: { const: 'SGD' }, params: sgdParams } },
    { properties: { type: { const: 'Adagrad' }, params: adagradParams } },
    { properties: { type: { const: 'Lion' }, params: lionParams } },
  ],
} as const;

export type OptimizerConfig = FromSchema<typeof optimizerSchema>;

/** An optimizer and the settings that a config gives it. */
export interface ConfiguredOptimizer<Options extends OptimizerOptions = OptimizerOptions> {
  readonly algorithm: FlatOptimizer<Options>;
  readonly options: Options;
}

/** The optimizer that a config names. Type "AdamW" always decouples the decay, type "Adam" unless adam_w_mode is false. */
export function createOptimizer(config: OptimizerConfig): ConfiguredOptimizer {
  const { lr, weight_decay: weightDecay } = config.params;
  switch (config.type) {
    case 'AdamW':
    case 'Adam': {
      const { betas, eps, adam_w_mode } = config.params;
      const decoupled = config.type === 'AdamW' || adam_w_mode;
      return configured(adam, { lr, betas, eps, weightDecay, decoupled, biasCorrection: true });
    }
    case 'SGD': {
      const { momentum, dampening, nesterov } = config.params;
      return momentum === 0
        ? configured(plainSgd, { lr, weightDecay })
        : configured(sgd, { lr, momentum, dampening, nesterov, weightDecay });
    }
    case 'Adagrad': {
      const { eps, lr_decay: lrDecay, initial_accumulator_value: initialAccumulatorValue } = config.params;
      return configured(adagrad, { lr, eps, lrDecay, weightDecay, initialAccumulatorValue });
    }
    case 'Lion':
      return configured(lion, { lr, betas: config.params.betas, weightDecay });
  }
}

function configured<Options extends OptimizerOptions>(algorithm: FlatOptimizer<Options>, options: Options): ConfiguredOptimizer<Options> {
  return { algorithm, options };
}

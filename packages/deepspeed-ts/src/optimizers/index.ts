import type { FromSchema, Module } from '@deepspeed-ts/core';
import {
  adagrad,
  adam,
  adamw8bit,
  type FlatOptimizer,
  lamb,
  lion,
  muon,
  type OptimizerOptions,
  type ParameterOptimizer,
  plainSgd,
  sgd,
} from '@deepspeed-ts/zero';
import type { ParameterGroups } from '../engine/optimizer.js';
import { adagradParams, adam8bitParams, adamParams, lambParams, lionParams, muonParams, sgdParams } from './params.js';
import { embeddingsOf } from './roles.js';

export { noDecayForNormsAndBiases } from './roles.js';

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
    { properties: { type: { const: 'Lamb' }, params: lambParams } },
    { properties: { type: { const: 'Muon' }, params: muonParams } },
    { properties: { type: { const: 'AdamW8bit' }, params: adam8bitParams } },
  ],
} as const;

export type OptimizerConfig = FromSchema<typeof optimizerSchema>;

/** An optimizer and the settings that a config gives it. */
export interface ConfiguredOptimizer<Options extends OptimizerOptions = OptimizerOptions> {
  /** Elementwise, or one that looks at whole parameters. */
  readonly algorithm: FlatOptimizer<Options> | ParameterOptimizer<Options>;
  readonly options: Options;
  /** Settings that it wants otherwise for some parameters; those of `initialize`'s `parameterGroups` come before them. */
  readonly groups?: ParameterGroups;
}

/** The optimizer that a config names, for a model. Type "AdamW" always decouples the decay, type "Adam" unless adam_w_mode is false. */
export function createOptimizer(config: OptimizerConfig, model: Module): ConfiguredOptimizer {
  const { lr, weight_decay: weightDecay } = config.params;
  switch (config.type) {
    case 'AdamW':
    case 'Adam': {
      const { betas, eps, adam_w_mode, bias_correction: biasCorrection } = config.params;
      const decoupled = config.type === 'AdamW' || adam_w_mode;
      return configured(adam, { lr, betas, eps, weightDecay, decoupled, biasCorrection });
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
    case 'Lamb': {
      const { betas, eps, eps_inside_sqrt: epsInsideRoot, bias_correction: biasCorrection } = config.params;
      const { min_coeff: minCoeff, max_coeff: maxCoeff } = config.params;
      return configured(lamb, { lr, betas, eps, epsInsideRoot, weightDecay, biasCorrection, minCoeff, maxCoeff });
    }
    case 'Muon': {
      const { muon_lr, adam_lr, momentum, nesterov, betas, eps, ns_steps: nsSteps } = config.params;
      const isEmbedding = embeddingsOf(model);
      const algorithm = muon((name, parameter) => !isEmbedding(name, parameter));
      const options = { lr: adam_lr ?? lr, momentum, nesterov, nsSteps, betas, eps, weightDecay };
      const rate = muon_lr ?? lr;
      if (rate === options.lr) return configured(algorithm, options);
      const isMatrix = algorithm.isMatrix;
      return { ...configured(algorithm, options), groups: (name, parameter) => (isMatrix(name, parameter) ? { lr: rate } : undefined) };
    }
    case 'AdamW8bit': {
      const { betas, eps, bias_correction: biasCorrection, min_8bit_size, f32_embeddings } = config.params;
      const isEmbedding = embeddingsOf(model);
      const algorithm = adamw8bit(
        (name, parameter) => parameter.numel >= min_8bit_size && !(f32_embeddings && isEmbedding(name, parameter)),
      );
      return configured(algorithm, { lr, betas, eps, weightDecay, decoupled: true, biasCorrection });
    }
  }
}

function configured<Options extends OptimizerOptions>(
  algorithm: FlatOptimizer<Options> | ParameterOptimizer<Options>,
  options: Options,
): ConfiguredOptimizer<Options> {
  return { algorithm, options };
}

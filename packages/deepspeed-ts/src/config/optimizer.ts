import { type ConfigOf, defineSection } from '@deepspeed-ts/core';
import { schedulerSchema } from '../schedules/index.js';

const ONE_BIT = 'compressed communication does not exist yet';
const beta = { type: 'number', minimum: 0, exclusiveMaximum: 1 } as const;

/** `optimizer`, `scheduler` and what happens to the gradient between backward and update. */
export const optimizerSection = defineSection({
  name: 'Optimizer',
  summary: 'How weights are updated. Leave `optimizer` out to train nothing, or to hand an optimizer of your own to `initialize`.',
  properties: {
    optimizer: {
      type: 'object',
      description: 'The optimizer that the engine makes.',
      required: ['type'],
      properties: {
        type: {
          type: 'string',
          enum: ['AdamW', 'Adam'],
          ignoreCase: true,
          refused: {
            Adagrad: 'only Adam and AdamW exist yet',
            Lion: 'only Adam and AdamW exist yet',
            Lamb: 'it needs norms per layer; only Adam and AdamW exist yet',
            SGD: 'only Adam and AdamW exist yet',
            Muon: 'it needs whole matrices where ZeRO has slices; only Adam and AdamW exist yet',
            OneBitAdam: ONE_BIT,
            ZeroOneAdam: ONE_BIT,
            OneBitLamb: ONE_BIT,
            MuAdam: 'it needs the mup package of Python',
            MuAdamW: 'it needs the mup package of Python',
            MuSGD: 'it needs the mup package of Python',
          },
          description: 'Case does not matter. As in DeepSpeed "Adam" decays weights the AdamW way unless adam_w_mode is false.',
        },
        params: {
          type: 'object',
          default: {},
          description: 'Adam (https://arxiv.org/abs/1412.6980) with decoupled weight decay (https://arxiv.org/abs/1711.05101).',
          properties: {
            lr: { type: 'number', minimum: 0, default: 0.001, description: 'Learning rate; a scheduler may move it.' },
            betas: {
              type: 'array',
              items: [beta, beta],
              default: [0.9, 0.999],
              description: 'Decay of the running mean of the gradient and of its square.',
            },
            eps: { type: 'number', minimum: 0, default: 1e-8, description: 'Added to the root of the second moment.' },
            weight_decay: { type: 'number', minimum: 0, default: 0, description: 'Share of a weight that decays per step, times lr.' },
            adam_w_mode: {
              type: 'boolean',
              default: true,
              description: 'For type "Adam": false adds the decay to the gradient (L2) instead of to the weight.',
            },
            bias_correction: {
              const: true,
              default: true,
              hint: 'the moments are always corrected for starting at zero',
              description: 'Corrects the moments of the first steps.',
            },
            torch_adam: {
              type: 'boolean',
              default: false,
              description: "Accepted without effect: it chooses between PyTorch's kernel and DeepSpeed's, and there is one here.",
            },
          },
        },
      },
    },
    scheduler: schedulerSchema,
    gradient_clipping: {
      type: 'number',
      minimum: 0,
      default: 1,
      description: 'Largest norm of the gradient of all parameters together; a larger one is scaled down to it. 0 switches clipping off.',
    },
    zero_allow_untested_optimizer: {
      type: 'boolean',
      default: false,
      description: 'Accepted without effect: no optimizer is refused for being unknown.',
    },
    zero_force_ds_cpu_optimizer: {
      type: 'boolean',
      default: true,
      description: 'Accepted without effect: it chooses an optimizer for CPU offload.',
    },
  },
  unsupported: {
    'optimizer.legacy_fusion': 'it belongs to the old fp16 optimizer of DeepSpeed',
    'optimizer.params.max_grad_norm': 'clipping belongs to the engine; set the top-level key gradient_clipping',
    'optimizer.params.amsgrad': 'the variant that keeps the largest second moment does not exist here',
    'optimizer.params.fp32_optimizer_states': 'optimizer state is always f32',
  },
});

export type OptimizerConfig = NonNullable<ConfigOf<[typeof optimizerSection]>['optimizer']>;

/** What an Adam update needs to know. */
export interface AdamSettings {
  readonly lr: number;
  readonly betas: readonly [number, number];
  readonly eps: number;
  readonly weightDecay: number;
  /** Decay the weight itself (AdamW) rather than add the decay to the gradient (L2). */
  readonly decoupled: boolean;
}

/** Translates `optimizer` as DeepSpeed reads it: type "AdamW" always decouples, type "Adam" unless adam_w_mode is false. */
export function adamSettings({ type, params }: OptimizerConfig): AdamSettings {
  return {
    lr: params.lr,
    betas: params.betas,
    eps: params.eps,
    weightDecay: params.weight_decay,
    decoupled: type === 'AdamW' || params.adam_w_mode,
  };
}

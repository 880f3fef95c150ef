import { defineSection } from '@deepspeed-ts/core';
import { optimizerSchema } from '../optimizers/index.js';
import { schedulerSchema } from '../schedules/index.js';

/** `optimizer`, `scheduler` and what happens to the gradient between backward and update. */
export const optimizerSection = defineSection({
  name: 'Optimizer',
  summary: 'How weights are updated. Leave `optimizer` out to hand an optimizer of your own to `initialize`.',
  properties: {
    optimizer: optimizerSchema,
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
    'optimizer.params.fp32_optimizer_states': 'optimizer state is f32 unless bf16.bf16_optimizer_states says bf16',
  },
  check({ optimizer }, report) {
    if (optimizer?.type === 'Lamb' && optimizer.params.min_coeff > optimizer.params.max_coeff)
      report('optimizer.params.min_coeff', `expected at most max_coeff, ${optimizer.params.max_coeff}, got ${optimizer.params.min_coeff}`);
    if (optimizer?.type !== 'SGD' || !optimizer.params.nesterov) return;
    const { momentum, dampening } = optimizer.params;
    if (momentum === 0 || dampening > 0)
      report('optimizer.params.nesterov', `needs momentum > 0 and dampening 0, got momentum ${momentum} and dampening ${dampening}`);
  },
});

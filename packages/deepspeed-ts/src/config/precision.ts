import { defineSection } from '@deepspeed-ts/core';

/** In which dtypes weights, gradients and messages are held. Optimizer state and master weights are f32 whatever is chosen. */
export const precisionSection = defineSection({
  name: 'Precision and communication',
  summary: 'f32 unless bf16 is enabled. Master weights and optimizer state are always f32.',
  properties: {
    bf16: {
      type: 'object',
      default: {},
      description: 'Training with bfloat16 weights and activations over f32 master weights.',
      properties: {
        enabled: { type: 'boolean', default: false, description: 'Hold weights, activations and gradients in bfloat16.' },
        check_grad_overflow: {
          const: true,
          default: true,
          hint: 'an update whose gradient is not finite is never applied',
          description: 'Skip an update whose gradient is not finite.',
        },
        immediate_grad_update: {
          type: 'boolean',
          default: false,
          description: 'Accepted without effect: gradients are added up as backward makes them.',
        },
        bf16_master_weights_and_grads: {
          const: false,
          default: false,
          hint: 'master weights are f32',
          description: 'Master weights in bfloat16.',
        },
        bf16_optimizer_states: {
          const: false,
          default: false,
          hint: 'optimizer state is f32',
          description: 'Optimizer state in bfloat16.',
        },
      },
    },
    fp16: {
      type: 'object',
      default: {},
      description: 'Training with float16 weights and loss scaling: not yet. The other keys only count when it is enabled.',
      properties: {
        enabled: {
          const: false,
          default: false,
          hint: 'loss scaling does not exist yet; use "bf16": {"enabled": true}, which needs none',
          description: 'Hold weights, activations and gradients in float16.',
        },
        auto_cast: { type: 'boolean', default: false, description: 'Cast inputs to float16.' },
        loss_scale: { type: 'number', minimum: 0, default: 0, description: 'Fixed loss scale; 0 for a dynamic one.' },
        initial_scale_power: { type: 'integer', minimum: 0, default: 16, description: 'The dynamic scale starts at 2 to this power.' },
        loss_scale_window: { type: 'integer', minimum: 1, default: 1000, description: 'Clean steps after which the scale doubles.' },
        hysteresis: { type: 'integer', minimum: 1, default: 2, description: 'Overflows before the scale is halved.' },
        consecutive_hysteresis: { type: 'boolean', default: false, description: 'A clean step forgives earlier overflows.' },
        min_loss_scale: { type: 'number', exclusiveMinimum: 0, default: 1, description: 'The dynamic scale never goes below.' },
        fp16_master_weights_and_grads: {
          const: false,
          default: false,
          hint: 'master weights are f32',
          description: 'Master weights in float16.',
        },
      },
    },
    data_types: {
      type: 'object',
      default: {},
      description: 'Dtypes that do not follow from bf16.',
      properties: {
        grad_accum_dtype: {
          enum: ['fp32', 'bf16', null],
          default: null,
          refused: { fp16: 'float16 training does not exist yet' },
          description: 'Dtype in which gradients add up over micro-batches; null takes the dtype of the weights.',
        },
      },
    },
    communication_data_type: {
      enum: ['fp32', 'bf16', null],
      default: null,
      refused: { fp16: 'float16 training does not exist yet' },
      description: 'Dtype in which gradients travel between ranks; null takes their own. Sums are formed in f32.',
    },
    gradient_allreduce_op: {
      type: 'string',
      enum: ['mean'],
      ignoreCase: true,
      default: 'mean',
      refused: { sum: 'gradients are averaged over ranks; multiply the loss by the number of ranks to get their sum' },
      description: 'How gradients of ranks become one.',
    },
    prescale_gradients: {
      const: false,
      default: false,
      hint: 'it guards float16 sums from overflow; sums are formed in f32 here',
      description: 'Divide gradients before they are added rather than after.',
    },
    gradient_predivide_factor: {
      const: 1,
      default: 1,
      hint: 'it guards float16 sums from overflow; sums are formed in f32 here',
      description: 'Part of the division by ranks that comes before the sum.',
    },
    sequence_parallel_size: {
      const: 1,
      default: 1,
      hint: 'sequence parallelism does not exist yet',
      description: 'Ranks that share one sequence.',
    },
  },
  unsupported: {
    bfloat16: 'the old spelling; write bf16',
    amp: 'it is NVIDIA Apex; use bf16',
    torch_autocast: 'dtypes follow from bf16, there is no autocast',
    'data_types.param_dtype': 'the dtype of weights follows from bf16',
    'data_types.buffer_dtype': 'buffers keep the dtype that the model gives them',
    sparse_gradients: 'gradients of embeddings are dense, so that ZeRO can slice them',
    disable_allgather: 'ranks would drift apart without it',
    seq_parallel_communication_data_type: 'sequence parallelism does not exist yet',
    seq_parallel_comm_data_type: 'sequence parallelism does not exist yet',
    data_parallel_size: 'every rank is data-parallel; the launcher sets their number',
    use_data_before_expert_parallelism: 'expert parallelism does not exist yet',
  },
});

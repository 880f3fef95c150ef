import { defineSection } from '@deepspeed-ts/core';

/** In which dtypes weights, gradients, optimizer states and messages are held. */
export const precisionSection = defineSection({
  name: 'Precision and communication',
  summary: 'f32 unless bf16 or fp16 is enabled. Master weights and optimizer state are f32 unless bf16 says otherwise.',
  properties: {
    bf16: {
      type: 'object',
      default: {},
      description: 'Training with bfloat16 weights and activations over f32 master weights.',
      properties: {
        enabled: { type: 'boolean', default: false, description: 'Hold weights, activations and gradients in bfloat16.' },
        check_grad_overflow: {
          type: 'boolean',
          default: false,
          description:
            'A step whose gradient is not finite never changes a weight. true: skip it without a word, which is the default of DeepSpeed; false: a NonFiniteError on every rank.',
        },
        immediate_grad_update: {
          type: 'boolean',
          default: false,
          description: 'Accepted without effect: gradients are added up as backward makes them.',
        },
        bf16_master_weights_and_grads: {
          type: 'boolean',
          default: false,
          description:
            'Let the optimizer update the bfloat16 weights themselves, rounded to nearest, and keep no f32 master weights; gradients are bfloat16 too. Updates below 1/256 of a weight get lost.',
        },
        bf16_optimizer_states: {
          type: 'boolean',
          default: false,
          description: 'Keep optimizer states in bfloat16, rounded to nearest; the formulas are in f32. States in 8 bits stay so.',
        },
      },
    },
    fp16: {
      type: 'object',
      default: {},
      description:
        'Training with float16 weights and activations over f32 master weights, with loss scaling. A step whose gradient overflows is skipped.',
      properties: {
        enabled: { type: 'boolean', default: false, description: 'Hold weights, activations and gradients in float16.' },
        auto_cast: {
          const: false,
          default: false,
          hint: 'token ids need no cast; a model with float inputs casts them itself, with castTo()',
          description: 'Cast inputs to float16.',
        },
        loss_scale: {
          type: 'number',
          minimum: 0,
          default: 0,
          description: 'Fixed loss scale; 0 for a dynamic one, which the other keys are for.',
        },
        initial_scale_power: {
          type: 'integer',
          minimum: 0,
          maximum: 127,
          default: 16,
          description: 'The dynamic scale starts at 2 to this power.',
        },
        loss_scale_window: {
          type: 'integer',
          minimum: 1,
          default: 1000,
          description: 'Steps without overflow after which the scale doubles, one more after an overflow.',
        },
        hysteresis: {
          type: 'integer',
          minimum: 1,
          default: 2,
          description: 'The overflow of this number halves the scale, and so does every one after it until a window has passed.',
        },
        consecutive_hysteresis: { type: 'boolean', default: false, description: 'One step without overflow forgives those before it.' },
        min_loss_scale: {
          type: 'number',
          exclusiveMinimum: 0,
          default: 1,
          description: 'The dynamic scale never goes below; an overflow there is an error on every rank.',
        },
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
      description: 'Dtypes that do not follow from bf16 and fp16.',
      properties: {
        grad_accum_dtype: {
          enum: ['fp32', 'bf16', 'fp16', null],
          default: null,
          description: 'Dtype in which gradients add up over micro-batches; null takes the dtype of the weights.',
        },
      },
    },
    communication_data_type: {
      enum: ['fp32', 'bf16', 'fp16', null],
      default: null,
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
    amp: { reason: 'it is NVIDIA Apex; use bf16 or fp16', keys: ['opt_level', 'loss_scale', 'keep_batchnorm_fp32'] },
    torch_autocast: { reason: 'dtypes follow from bf16 and fp16, there is no autocast', keys: ['dtype', 'lower_precision_safe_modules'] },
    'data_types.param_dtype': 'the dtype of weights follows from bf16 and fp16',
    'data_types.buffer_dtype': 'buffers keep the dtype that the model gives them',
    sparse_gradients: 'gradients of embeddings are dense, so that ZeRO can slice them',
    disable_allgather: 'ranks would drift apart without it',
    seq_parallel_communication_data_type: 'sequence parallelism does not exist yet',
    seq_parallel_comm_data_type: 'sequence parallelism does not exist yet',
    data_parallel_size: 'every rank is data-parallel; the launcher sets their number',
    use_data_before_expert_parallelism: 'expert parallelism does not exist yet',
  },
  check({ bf16, fp16, data_types, communication_data_type }, report) {
    for (const key of ['bf16_master_weights_and_grads', 'bf16_optimizer_states'] as const) {
      if (bf16[key] && !bf16.enabled) report(`bf16.${key}`, 'needs "bf16": {"enabled": true}');
    }
    if (bf16.bf16_master_weights_and_grads && data_types.grad_accum_dtype === 'fp32')
      report('data_types.grad_accum_dtype', 'bf16.bf16_master_weights_and_grads keeps gradients in bf16; leave one of them out');
    if (bf16.enabled && fp16.enabled) report('fp16.enabled', 'bf16 and fp16 are both enabled; choose one');
    const initial = 2 ** fp16.initial_scale_power;
    if (fp16.enabled && fp16.loss_scale === 0 && fp16.min_loss_scale > initial)
      report(
        'fp16.min_loss_scale',
        `expected at most the initial scale, 2^${fp16.initial_scale_power} = ${initial}, got ${fp16.min_loss_scale}`,
      );
    const gradients = data_types.grad_accum_dtype;
    if (gradients === 'fp16' && !fp16.enabled)
      report(
        'data_types.grad_accum_dtype',
        'gradients in fp16 need the loss scaling of "fp16": {"enabled": true}; without it small ones vanish',
      );
    const own = gradients ?? (bf16.enabled ? 'bf16' : fp16.enabled ? 'fp16' : 'fp32');
    if (communication_data_type && communication_data_type !== own)
      report(
        'communication_data_type',
        `expected the dtype of gradients, ${own}, got ${communication_data_type}; gradients travel as they are stored (set data_types.grad_accum_dtype), and sums are formed in f32`,
      );
  },
});

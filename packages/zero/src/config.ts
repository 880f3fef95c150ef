import { type ConfigOf, defineSection, type Unsupported } from '@deepspeed-ts/core';

const STAGE_3_MEMORY = 'Accepted without effect: a unit (a block of the model) is gathered just before its use and released right after.';

/**
 * `zero_optimization`, with the keys of DeepSpeed 0.19.6. Many of DeepSpeed's keys tune how it packs tensors into buckets. Here the
 * parameters of a unit lie in one flat buffer that is its own bucket, so such keys keep their type and range but have nothing to tune;
 * the descriptions say so. A key whose other value would change what is computed or stored accepts only the value that we have.
 */
export const zeroSection = defineSection({
  name: 'ZeRO',
  summary: 'Which model state is kept as one slice per rank instead of whole on every rank.',
  properties: {
    zero_optimization: {
      type: 'object',
      default: {},
      hint: 'write {"stage": 1} rather than true',
      description: 'ZeRO: Memory Optimizations Toward Training Trillion Parameter Models (https://arxiv.org/abs/1910.02054).',
      properties: {
        stage: {
          enum: [0, 1, 2, 3],
          default: 0,
          hint: 'a number: 0 keeps all whole, 1 shards optimizer state, 2 also gradients, 3 also parameters',
          description: 'What is sharded: 0 nothing, 1 optimizer state, 2 also gradients, 3 also parameters. Never changes the numbers.',
        },
        overlap_comm: {
          type: ['boolean', 'null'],
          default: null,
          description:
            'Reduces the gradients of a unit while backward computes the next. null means true at every stage (DeepSpeed: at stage 3 only): the result is the same to the bit.',
        },
        contiguous_gradients: {
          const: true,
          default: true,
          hint: 'the gradients of a unit are views of one flat buffer, nothing is copied',
          description: 'Gradients lie in one buffer.',
        },
        reduce_scatter: {
          const: true,
          default: true,
          hint: 'reduce-scatter and all-reduce add in the same order here, so there is nothing to choose',
          description: 'Each rank receives only the part of the summed gradient that it owns.',
        },
        reduce_bucket_size: {
          type: 'integer',
          minimum: 0,
          default: 500000000,
          description: 'Accepted without effect: a unit is the bucket.',
        },
        allgather_partitions: {
          const: true,
          default: true,
          hint: 'updated parameters are always collected by all-gather',
          description: 'All-gather rather than broadcasts after the optimizer step.',
        },
        allgather_bucket_size: {
          type: 'integer',
          minimum: 0,
          default: 500000000,
          description: 'Accepted without effect: a unit is the bucket.',
        },
        use_multi_rank_bucket_allreduce: {
          const: true,
          default: true,
          hint: 'a unit is always reduced for all ranks in one call',
          description: 'One collective for the slices of all ranks.',
        },
        round_robin_gradients: {
          const: false,
          default: false,
          hint: 'it speeds up copying gradients for CPU offload, which does not exist yet',
          description: 'Order of gradient copies for CPU offload.',
        },
        load_from_fp32_weights: {
          const: true,
          default: true,
          hint: 'master weights always come from the checkpoint at full precision',
          description: 'Where master weights come from on resume.',
        },
        ignore_unused_parameters: {
          const: true,
          default: true,
          hint: 'a parameter without a gradient counts as one with gradient zero',
          description: 'A parameter that took no part in a step is no error.',
        },
        elastic_checkpoint: {
          const: false,
          default: false,
          hint: 'every checkpoint resumes at any number of ranks, without a switch',
          description: "DeepSpeed's old way to resume at another number of ranks.",
        },
        legacy_stage1: { const: false, default: false, hint: 'there is one implementation', description: 'An old stage 1 of DeepSpeed.' },
        sub_group_size: {
          type: 'integer',
          minimum: 1,
          default: 1000000000,
          description: 'Accepted without effect: the optimizer runs over the slice of one unit at a time.',
        },
        stage3_prefetch_bucket_size: {
          type: 'integer',
          minimum: 0,
          default: 50000000,
          description: '0 gathers each unit only when it is needed; any other value also gathers the next unit while this one computes.',
        },
        stage3_param_persistence_threshold: {
          type: 'integer',
          minimum: 0,
          default: 100000,
          description: 'Accepted without effect: small parameters travel with their unit, at no extra call.',
        },
        stage3_model_persistence_threshold: {
          type: 'integer',
          minimum: 0,
          default: 9007199254740991,
          description: 'Accepted without effect: no parameter stays whole between uses.',
        },
        stage3_max_live_parameters: { type: 'integer', minimum: 0, default: 1000000000, description: STAGE_3_MEMORY },
        stage3_max_reuse_distance: { type: 'integer', minimum: 0, default: 1000000000, description: STAGE_3_MEMORY },
        stage3_module_granularity_threshold: {
          type: 'integer',
          minimum: 0,
          default: 0,
          description: 'Accepted without effect: units are declared by the model, not found by size.',
        },
        stage3_gather_16bit_weights_on_model_save: {
          type: 'boolean',
          default: false,
          description: 'Accepted without effect: saving a model always writes its full weights, gathered one unit at a time.',
        },
        stage3_use_all_reduce_for_fetch_params: {
          const: false,
          default: false,
          hint: 'a unit is gathered straight into its flat buffer',
          description: 'All-reduce instead of all-gather to fetch parameters.',
        },
        stage3_allgather_sequential: {
          const: false,
          default: false,
          hint: 'a unit is gathered by one call without copies',
          description: 'Gathers parameter by parameter.',
        },
        memory_efficient_linear: {
          type: 'boolean',
          default: true,
          description: 'Accepted without effect: it patches a function of PyTorch.',
        },
        override_module_apply: {
          type: 'boolean',
          default: true,
          description: 'Accepted without effect: it patches a function of PyTorch.',
        },
        pipeline_loading_checkpoint: {
          const: false,
          default: false,
          hint: 'checkpoints are read by slices already',
          description: 'Loads a checkpoint rank after rank.',
        },
        log_trace_cache_warnings: {
          type: 'boolean',
          default: false,
          description: 'Accepted without effect: an order of modules that changes costs a prefetch, never a trace.',
        },
        enable_sanity_checks: {
          type: 'boolean',
          default: false,
          description: 'Accepted without effect: collectives that disagree are always found.',
        },
        save_muon_momentum_buffer_in_memory: {
          type: 'boolean',
          default: false,
          description: "Accepted without effect: Muon's momentum is sliced and kept like any optimizer state.",
        },
        zero_hpz_partition_size: {
          const: 1,
          default: 1,
          hint: 'hierarchical partitioning (ZeRO++) does not exist yet',
          description: 'Ranks of the secondary partition of ZeRO++.',
        },
        mics_shard_size: { const: -1, default: -1, hint: 'MiCS does not exist yet', description: 'Ranks per shard group of MiCS.' },
      },
    },
  },
  unsupported: under('zero_optimization', {
    offload_optimizer: {
      reason: 'optimizer state stays in the memory of its device; offload to CPU or NVMe does not exist yet',
      planned: '0.2',
      keys: [
        'nvme_path',
        'buffer_count',
        'pin_memory',
        'pipeline_read',
        'pipeline_write',
        'fast_init',
        'ratio',
        'super_offload',
        'cpuadam_cores_perc',
      ],
    },
    offload_param: {
      reason: 'parameters stay in the memory of their device; offload to CPU or NVMe does not exist yet',
      planned: '0.2',
      keys: ['nvme_path', 'buffer_count', 'buffer_size', 'max_in_cpu', 'pin_memory'],
    },
    cpu_offload: 'an old spelling of offload_optimizer, which does not exist yet',
    cpu_offload_param: 'an old spelling of offload_param, which does not exist yet',
    cpu_offload_use_pin_memory: 'an old spelling of pin_memory in offload_optimizer and offload_param, which do not exist yet',
    zenflow: 'ZenFlow belongs to optimizer offload, which does not exist yet',
    zero_quantized_weights: 'quantised all-gather (ZeRO++) does not exist yet',
    zero_quantized_gradients: 'quantised gradient reduction (ZeRO++) does not exist yet',
    zero_quantized_nontrainable_weights:
      "the model says how its frozen weights are kept: quantizeWeights(model, 'int8'), or fromPretrained(path, { quantization: 'int8' })",
    zeropp_loco_param: 'LoCo error feedback belongs to quantised gradients, which do not exist yet',
    mics_hierarchical_params_gather: 'MiCS does not exist yet',
    leaf_module: 'units are declared by the model; a mixture of experts is one unit without being told',
    grad_hooks: 'gradients are announced by the autograd tape; there are no hooks to switch off',
    stage3_gather_fp16_weights_on_model_save: 'renamed by DeepSpeed; write stage3_gather_16bit_weights_on_model_save',
    stage3_partition_stream_chunk_size: 'parameters are created as slices, so no chunked partitioning is needed',
  }),
});

export type ZeroConfig = ConfigOf<[typeof zeroSection]>['zero_optimization'];
export type ZeroStage = ZeroConfig['stage'];

/** What the partitioner needs to know of a config. */
export interface ZeroOptions {
  readonly stage: ZeroStage;
  /** Reduce a unit's gradients while backward computes the next unit. */
  readonly overlap: boolean;
  /** Gather the next unit while this one computes (stage 3). */
  readonly prefetch: boolean;
}

/** Translates the section into the choices that a unit-based ZeRO has. */
export function zeroOptions(config: ZeroConfig): ZeroOptions {
  return { stage: config.stage, overlap: config.overlap_comm ?? true, prefetch: config.stage3_prefetch_bucket_size > 0 };
}

function under(parent: string, reasons: Record<string, string | Unsupported>): Record<string, string | Unsupported> {
  return Object.fromEntries(Object.entries(reasons).map(([key, reason]) => [`${parent}.${key}`, reason]));
}

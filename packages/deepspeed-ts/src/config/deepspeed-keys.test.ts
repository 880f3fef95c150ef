import { ConfigError } from '@deepspeed-ts/core';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { loadConfig } from './index.js';

/** Keys of DeepSpeed 0.19.6 with a value that its documentation or code gives, but for those of optimizers and schedulers. */
const KEYS: Readonly<Record<string, unknown>> = {
  train_batch_size: 8,
  train_micro_batch_size_per_gpu: 4,
  gradient_accumulation_steps: 1,
  managed_gradient_accumulation: true,
  dataloader_drop_last: false,
  zero_allow_untested_optimizer: false,
  zero_force_ds_cpu_optimizer: true,
  communication_data_type: null,
  seq_parallel_communication_data_type: 'fp32',
  gradient_allreduce_op: 'mean',
  prescale_gradients: false,
  gradient_predivide_factor: 1.0,
  sparse_gradients: false,
  disable_allgather: false,
  gradient_clipping: 1.0,
  fp16: {
    enabled: false,
    auto_cast: false,
    loss_scale: 0,
    initial_scale_power: 16,
    loss_scale_window: 1000,
    hysteresis: 2,
    consecutive_hysteresis: false,
    min_loss_scale: 1,
    fp16_master_weights_and_grads: false,
  },
  bf16: {
    enabled: false,
    immediate_grad_update: false,
    check_grad_overflow: true,
    bf16_master_weights_and_grads: false,
    bf16_optimizer_states: false,
  },
  amp: { enabled: true, opt_level: 'O1' },
  torch_autocast: { enabled: true, dtype: 'bfloat16', lower_precision_safe_modules: ['torch.nn.Linear'] },
  data_types: { grad_accum_dtype: null, param_dtype: null, buffer_dtype: null },
  steps_per_print: 10,
  wall_clock_breakdown: false,
  memory_breakdown: false,
  dump_state: false,
  log_level: null,
  timers: { throughput: { enabled: true, synchronized: true } },
  sequence_parallel_size: 1,
  use_data_before_expert_parallelism: false,
  graph_harvesting: false,
  vocabulary_size: null,
  eigenvalue: {
    enabled: false,
    verbose: false,
    max_iter: 100,
    tol: 1e-2,
    stability: 1e-6,
    gas_boundary_resolution: 1,
    layer_name: 'bert.encoder.layer',
    layer_num: 0,
  },
  progressive_layer_drop: { enabled: false, theta: 1.0, gamma: 0.001 },
  curriculum_learning: { enabled: true, curriculum_type: 'seqlen', min_difficulty: 8, max_difficulty: 1024 },
  weight_quantization: { post_init_quant: {}, quantized_initialization: {} },
  checkpoint: {
    tag_validation: 'Warn',
    load_universal: false,
    use_node_local_storage: false,
    parallel_write: { pipeline_stage: false },
    checkpoint_serialization: true,
    writer: { type: 'FAST', decoupled: false, io_buffer_size: 67108864, io_buffer_double: true, io_multiplier: 1, show_statistics: false },
  },
  nebula: { enabled: false, persistent_time_interval: 100, num_of_version_in_retention: 2 },
  datastates_ckpt: { host_cache_size: 16 },
  zero_optimization: {
    stage: 3,
    contiguous_gradients: true,
    reduce_scatter: true,
    reduce_bucket_size: 5e8,
    allgather_partitions: true,
    allgather_bucket_size: 5e8,
    overlap_comm: true,
    use_multi_rank_bucket_allreduce: true,
    round_robin_gradients: false,
    load_from_fp32_weights: true,
    ignore_unused_parameters: true,
    elastic_checkpoint: false,
    legacy_stage1: false,
    sub_group_size: 1e9,
    stage3_prefetch_bucket_size: 5e7,
    stage3_param_persistence_threshold: 1e5,
    stage3_model_persistence_threshold: Number.MAX_SAFE_INTEGER,
    stage3_max_live_parameters: 1e9,
    stage3_max_reuse_distance: 1e9,
    stage3_gather_16bit_weights_on_model_save: false,
    stage3_module_granularity_threshold: 0,
    stage3_use_all_reduce_for_fetch_params: false,
    stage3_allgather_sequential: false,
    memory_efficient_linear: true,
    override_module_apply: true,
    pipeline_loading_checkpoint: false,
    log_trace_cache_warnings: false,
    enable_sanity_checks: false,
    save_muon_momentum_buffer_in_memory: false,
    leaf_module: { classes: [], names: [], name_suffixes: [] },
    zero_hpz_partition_size: 1,
    zero_quantized_weights: false,
    zero_quantized_gradients: false,
    zero_quantized_nontrainable_weights: false,
    zeropp_loco_param: { err_beta: 0.8, reset_T: 1024 },
    mics_shard_size: -1,
    mics_hierarchical_params_gather: false,
    offload_param: { device: 'none', nvme_path: null, buffer_count: 5, buffer_size: 1e8, max_in_cpu: 1e9, pin_memory: true },
    offload_optimizer: {
      device: 'none',
      nvme_path: null,
      buffer_count: 4,
      pin_memory: true,
      pipeline_read: false,
      pipeline_write: false,
      fast_init: false,
      ratio: 1.0,
      super_offload: false,
      cpuadam_cores_perc: 0.8,
    },
    zenflow: { topk_ratio: 0.1, select_strategy: 'auto' },
    cpu_offload: false,
    cpu_offload_param: false,
    cpu_offload_use_pin_memory: false,
  },
  aio: { block_size: 1048576, queue_depth: 8, intra_op_parallelism: 1, single_submit: false, overlap_events: true, use_gds: false },
  compile: { deepcompile: false },
  activation_checkpointing: {
    partition_activations: false,
    cpu_checkpointing: false,
    contiguous_memory_optimization: false,
    synchronize_checkpoint_boundary: false,
    profile: false,
    number_checkpoints: null,
  },
  pipeline: { stages: 'auto-detect', partition: 'best', seed_layers: false, activation_checkpoint_interval: 0 },
  tensor_parallel: { autotp_size: 0, tp_overlap_comm: false },
  expert_parallel: { enabled: false, autoep_size: 1 },
  data_efficiency: { enabled: false, seed: 1234 },
  compression_training: { layer_reduction: { enabled: false } },
  autotuning: { enabled: false, fast: true, metric: 'throughput', start_profile_step: 3, end_profile_step: 5, tuner_type: 'gridsearch' },
  elasticity: { enabled: false, max_train_batch_size: 2000, micro_batch_sizes: [2, 4, 6], min_gpus: 1, max_gpus: 10000 },
  hybrid_engine: { enabled: false, max_out_tokens: 512, inference_tp_size: 1, release_inference_cache: false, pin_parameters: true },
  sparse_attention: { mode: 'fixed', block: 16 },
  flops_profiler: {
    enabled: false,
    profile_step: 1,
    module_depth: -1,
    top_modules: 1,
    detailed: true,
    output_file: null,
    recompute_fwd_factor: 0,
  },
  comms_logger: { enabled: false, verbose: false, prof_all: true, prof_ops: [], debug: false },
  tensorboard: { enabled: false, output_path: '', job_name: 'DeepSpeedJobName' },
  csv_monitor: { enabled: false, output_path: '', job_name: 'DeepSpeedJobName' },
  wandb: { enabled: false, group: null, team: null, project: 'deepspeed' },
  comet: { enabled: false, samples_log_interval: 100 },
};

function problemsOf(config: object): readonly string[] {
  try {
    loadConfig(config, 2);
  } catch (error) {
    if (error instanceof ConfigError) return error.problems;
    throw error;
  }
  return [];
}

/** The key alone, beside what every config needs. */
const withKey = (key: string, value: unknown): object => ({ train_batch_size: 8, [key]: value });

/** Every key of a section, one at a time: `[path, config]`. */
const single: [string, object][] = Object.entries(KEYS).flatMap(([key, value]): [string, object][] => {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return [[key, withKey(key, value)]];
  const inner = Object.entries(value).filter(([name]) => name !== 'enabled' && name !== 'device');
  return [[key, withKey(key, value)], ...inner.map(([name, v]): [string, object] => [`${key}.${name}`, withKey(key, { [name]: v })])];
});

describe('a config written for DeepSpeed', () => {
  test.each(single)('%s is honoured, or refused by name with the reason', (_, config) => {
    for (const problem of problemsOf(config)) {
      expect(problem).not.toMatch(/unknown key/);
      expect(problem).toMatch(/not supported|\(.+\)/);
    }
  });

  test('that leaves every feature that is not here switched off is valid, whatever else stands there', () => {
    const off = Object.entries(KEYS).filter(([, value]) => (value as { enabled?: boolean } | null)?.enabled === false);
    const { offload_param, offload_optimizer } = KEYS.zero_optimization as Record<string, unknown>;
    const config = { train_batch_size: 8, ...Object.fromEntries(off), zero_optimization: { stage: 3, offload_param, offload_optimizer } };
    expect(problemsOf(config)).toEqual([]);
  });

  test('names the right key also inside features that are not here', () => {
    const inside = Object.entries(KEYS).flatMap(([section, value]) =>
      (value as { enabled?: boolean } | null)?.enabled === false ? Object.keys(value as object).map((key) => [section, key] as const) : [],
    );
    fc.assert(
      fc.property(fc.constantFrom(...inside.filter(([, key]) => key.length > 4 && key !== 'enabled')), fc.nat(), ([section, key], at) => {
        const i = at % (key.length - 1);
        const typo = key.slice(0, i) + key[i + 1] + key[i] + key.slice(i + 2);
        if (typo === key) return;
        const [problem] = problemsOf(withKey(section, { enabled: false, [typo]: 0 }));
        expect(problem).toContain(`"${section}.${key}"`);
      }),
    );
  });
});

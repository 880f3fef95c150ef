import { defineSection, type Unsupported } from '@deepspeed-ts/core';

/** A feature to come: a section that is switched off may keep the keys that DeepSpeed knows in it. */
function planned(planned: string, reason: string, keys: string): Unsupported {
  return { reason, planned, keys: words(keys) };
}

/** A feature that has no place here. */
function foreign(reason: string, keys = ''): Unsupported {
  return { reason, keys: words(keys) };
}

const words = (text: string): string[] => text.split(/\s+/).filter((word) => word !== '');

/** The sections of DeepSpeed whose features do not exist here, with the keys that its schemas and readers know (0.19.6). */
export const absentSection = defineSection({
  name: 'Features that are not here',
  summary: 'They have no keys of ours; the list of refused keys below says why, and which release may bring them.',
  properties: {},
  unsupported: {
    aio: planned(
      '0.2',
      'NVMe offload does not exist yet',
      'block_size queue_depth intra_op_parallelism thread_count single_submit overlap_events use_gds',
    ),
    autotuning: planned(
      '0.4',
      'the tuner does not exist yet; deepspeed-ts plan says what fits',
      `fast results_dir exps_dir overwrite metric start_profile_step end_profile_step tuner_type tuner_early_stopping tuner_num_trials
       num_tuning_micro_batch_sizes max_train_batch_size min_train_batch_size max_train_micro_batch_size_per_gpu
       min_train_micro_batch_size_per_gpu mp_size arg_mappings model_info model_info_path`,
    ),
    compile: foreign(
      'there is no graph compiler, kernels are fused by hand',
      `deepcompile passes offload_parameters offload_opt_states offload_activation offload_activation_pin_memory double_buffer symmetric_memory free_activation
       free_activation_threshold sync_before_reduce sync_after_reduce sync_before_allgather sync_after_allgather keep_int_input_tensors
       debug_log keep_all_input_tensors`,
    ),
    compression_training: planned(
      '0.4',
      'compression does not exist yet',
      'layer_reduction weight_quantization activation_quantization sparse_pruning row_pruning head_pruning channel_pruning',
    ),
    curriculum_learning: planned(
      '0.4',
      'curricula do not exist yet',
      'curriculum_type min_difficulty max_difficulty schedule_type schedule_config params',
    ),
    data_efficiency: planned('0.4', 'curricula and random-LTD do not exist yet', 'seed data_sampling data_routing'),
    eigenvalue: foreign(
      'it belongs to quantised training, which does not exist here',
      'verbose max_iter tol stability gas_boundary_resolution layer_name layer_num',
    ),
    elasticity: planned(
      '0.4',
      'elastic batch sizes do not exist yet; a checkpoint resumes at any number of ranks',
      `max_train_batch_size micro_batch_sizes min_gpus max_gpus min_time version prefer_larger_batch ignore_non_elastic_batch_info
       num_gpus_per_node model_parallel_size`,
    ),
    expert_parallel: planned(
      '0.4',
      'expert parallelism does not exist yet',
      `autoep_size expert_tensor_parallel_size preset_model use_grouped_mm disable_triton_grouped_mm moe_layer_pattern router_pattern
       expert_pattern score_func score_apply combine_impl route_norm route_scale top_k num_expert_groups num_limited_groups expert_w1
       expert_w2 expert_w3 shared_experts_pattern`,
    ),
    graph_harvesting: foreign('it captures CUDA graphs of PyTorch; DEEPSPEED_TS_CUDA_GRAPHS=1 captures ours'),
    hybrid_engine: planned(
      '0.3',
      'generate(model, prompts) writes in the middle of training at every stage and needs no section; several GPUs for one copy of the weights do not exist yet',
      'max_out_tokens inference_tp_size release_inference_cache pin_parameters tp_gather_partition_size',
    ),
    pipeline: planned(
      '0.4',
      'pipeline parallelism does not exist yet',
      'stages partition seed_layers activation_checkpoint_interval pipe_partitioned grad_partitioned',
    ),
    progressive_layer_drop: planned('0.4', 'progressive layer dropping does not exist yet', 'theta gamma'),
    quantize_training: foreign(
      'quantised training in the style of MoQ does not exist here',
      'quantize_bits quantize_schedule quantize_groups',
    ),
    sparse_attention: planned(
      '0.4',
      'block-sparse attention does not exist yet',
      `mode block different_layout_per_head num_local_blocks num_global_blocks attention horizontal_global_attention
       num_different_global_patterns num_random_blocks local_window_blocks global_block_indices global_block_end_indices
       num_sliding_window_blocks`,
    ),
    tensor_parallel: planned(
      '0.3',
      'tensor parallelism does not exist yet',
      'autotp_size tp_overlap_comm preset_model partition_config tp keep_module_on_host',
    ),
    vocabulary_size: foreign('it only warns about alignment; the model knows its vocabulary'),
    weight_quantization: planned('0.3', 'quantised weights do not exist yet', 'post_init_quant quantized_initialization'),
  },
});

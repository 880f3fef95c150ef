import { defineSection } from '@deepspeed-ts/core';

/** What the engine tells about itself, and the sections of DeepSpeed whose features do not exist here yet. */
export const reportsSection = defineSection({
  name: 'Reports',
  summary: 'What the engine prints, on rank 0 only.',
  properties: {
    steps_per_print: {
      type: ['integer', 'null'],
      minimum: 1,
      default: null,
      description: 'Optimizer steps between progress lines; null prints none.',
    },
    wall_clock_breakdown: { type: 'boolean', default: false, description: 'Add the time of forward, backward and step to each report.' },
  },
  unsupported: {
    aio: 'NVMe offload does not exist yet',
    autotuning: 'the tuner does not exist yet',
    compile: 'there is no graph compiler, kernels are fused by hand',
    compression_training: 'compression does not exist yet',
    curriculum_learning: 'curricula do not exist yet',
    data_efficiency: 'curricula and random-LTD do not exist yet',
    eigenvalue: 'it belongs to quantised training, which does not exist yet',
    elasticity: 'elastic batch sizes do not exist yet; a checkpoint resumes at any number of ranks',
    expert_parallel: 'expert parallelism does not exist yet',
    graph_harvesting: 'it captures CUDA graphs of PyTorch',
    hybrid_engine: 'generation inside training does not exist yet',
    pipeline: 'pipeline parallelism does not exist yet',
    progressive_layer_drop: 'progressive layer dropping does not exist yet',
    quantize_training: 'quantised training does not exist yet',
    sparse_attention: 'block-sparse attention does not exist yet',
    tensor_parallel: 'tensor parallelism does not exist yet',
    vocabulary_size: 'it only warns about alignment; the model knows its vocabulary',
    weight_quantization: 'quantised weights do not exist yet',
  },
});

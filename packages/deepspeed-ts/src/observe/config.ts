import { defineSection, type Json } from '@deepspeed-ts/core';
import { COLLECTIVES } from './comms/collective-record.js';
import { LOG_LEVELS } from './log.js';

const FLAG = { type: 'boolean', default: false } as const;

/** Names of DeepSpeed's calls, and ours. */
const PROF_OPS = [...COLLECTIVES, 'all_gather_into_tensor', 'reduce_scatter_tensor', 'all_to_all_single'] as const;

/** What a run writes about itself beside its reports. Keys and defaults of DeepSpeed 0.19.6, and a few of our own that say so. */
export const monitorSection = defineSection({
  name: 'Monitors',
  summary:
    'Where rank 0 writes `Train/Samples/train_loss`, `lr`, `loss_scale` (fp16) and, with `wall_clock_breakdown`, `elapsed_time_ms_*`, counted in samples. See [observability](observability.md).',
  properties: {
    tensorboard: {
      type: 'object',
      default: {} as Json,
      description: 'Event files that TensorBoard shows, in the folder output_path/job_name.',
      properties: job(),
    },
    csv_monitor: {
      type: 'object',
      default: {} as Json,
      description: 'A CSV file for each name, in the folder output_path/job_name.',
      properties: job(),
    },
    wandb: {
      type: 'object',
      default: {} as Json,
      description: 'A run of Weights & Biases, written as its offline mode does, for `wandb sync` to upload.',
      properties: {
        ...monitor(),
        project: { type: 'string', default: 'deepspeed', description: 'Project of the run.' },
        team: { type: ['string', 'null'], default: null, description: 'Whose project it is; null: of whoever uploads it.' },
        group: { type: ['string', 'null'], default: null, description: 'Group of runs that it is shown in.' },
      },
    },
  },
  unsupported: {
    comet: {
      reason: 'Comet has no SDK for Node; write tensorboard files, or log from the training loop with engine.report()',
      keys: ['samples_log_interval', 'project', 'workspace', 'api_key', 'experiment_name', 'experiment_key', 'online', 'mode'],
    },
  },
});

export const profilingSection = defineSection({
  name: 'Profiling',
  summary: 'Where time, memory and FLOPs go. All of it is off by default and costs nothing then. See [observability](observability.md).',
  properties: {
    memory_breakdown: { ...FLAG, description: 'Add the memory of each kind to each printed report.' },
    dump_state: { ...FLAG, description: 'Print the config in force and what is on the device, once, when the engine is made.' },
    log_level: {
      type: ['string', 'null'],
      enum: [...LOG_LEVELS, null],
      ignoreCase: true,
      default: null,
      description: 'From which level on the engine speaks; null is info, which reports have. Warnings of monitors have warning.',
    },
    timers: {
      type: 'object',
      default: {},
      description: 'Measurements of whole steps.',
      properties: {
        throughput: {
          type: 'object',
          default: {},
          description: 'Samples and tokens per second, and MFU, in reports.',
          properties: {
            enabled: { type: 'boolean', default: true, description: 'Report rates.' },
            synchronized: {
              type: 'boolean',
              default: true,
              description: 'Accepted without effect: a step ends with reading its gradient norm, so the clock always sees whole steps.',
            },
            peak_tflops: {
              type: ['number', 'null'],
              exclusiveMinimum: 0,
              default: null,
              description:
                'Our own key: TFLOP/s that a device could do at most, for MFU. null: from the name of the GPU for 16-bit training, and no MFU elsewhere.',
            },
          },
        },
      },
    },
    comms_logger: {
      type: 'object',
      default: {},
      description: 'Times collectives; `engine.communication.summary()` says what they cost.',
      properties: {
        enabled: { ...FLAG, description: 'Time them.' },
        verbose: { ...FLAG, description: 'A line for each collective.' },
        prof_all: { type: 'boolean', default: true, description: 'All of them.' },
        prof_ops: {
          type: 'array',
          items: { enum: PROF_OPS },
          default: [] as Json,
          description: 'Which ones, where prof_all is false.',
        },
        debug: { ...FLAG, description: 'Tell them apart by what they are for, the unit of the model.' },
      },
    },
    flops_profiler: {
      type: 'object',
      default: {},
      description: 'Profiles one step by module and prints it; `engine.profile()` does so at any time.',
      properties: {
        enabled: { ...FLAG, description: 'Profile.' },
        profile_step: { type: 'integer', minimum: 0, default: 1, description: 'Steps before the one that is profiled.' },
        module_depth: {
          type: 'integer',
          minimum: -1,
          default: -1,
          description: 'Levels of modules below the model that are shown; -1: all.',
        },
        top_modules: {
          type: 'integer',
          minimum: 1,
          default: 1,
          description: 'How many of the most expensive modules of each level are named.',
        },
        detailed: { type: 'boolean', default: true, description: 'Print the tree of modules too.' },
        output_file: {
          type: ['string', 'null'],
          default: null,
          description: 'Where it goes instead of standard output; the profile itself where the name ends in .json, else the table.',
        },
        recompute_fwd_factor: {
          type: 'number',
          minimum: 0,
          default: 0,
          description: 'Accepted without effect: what is computed again in backward is measured, not estimated.',
        },
      },
    },
    trace: {
      type: 'object',
      default: {},
      description: 'Our own key: a Chrome/Perfetto trace of compute phases, units and communication, a file for each rank.',
      properties: {
        enabled: { ...FLAG, description: 'Trace.' },
        path: { type: 'string', default: 'traces', description: 'Folder of the files trace-rank0.json, trace-rank1.json, ...' },
        start_step: { type: 'integer', minimum: 0, default: 2, description: 'Steps before the first that is traced.' },
        steps: { type: 'integer', minimum: 1, default: 3, description: 'Steps that are traced.' },
      },
    },
  },
  unsupported: {},
});

function monitor() {
  return {
    enabled: { ...FLAG, description: 'Write them.' },
    output_path: { type: 'string', default: '', description: 'Folder; empty is the working directory.' },
    fail_on_error: {
      ...FLAG,
      description: 'Our own key: end training where values can not be written, rather than warn once.',
    },
  } as const;
}

function job() {
  return { ...monitor(), job_name: { type: 'string', default: 'DeepSpeedJobName', description: 'Folder in it.' } } as const;
}

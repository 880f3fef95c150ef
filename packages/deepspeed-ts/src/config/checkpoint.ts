import { defineSection } from '@deepspeed-ts/core';

const EVERYONE_WRITES = 'every rank writes its part, each with threads of its own; there is nothing to choose';

/** How `saveCheckpoint` behaves. What a checkpoint is does not depend on it. */
export const checkpointSection = defineSection({
  name: 'Checkpoints',
  summary:
    'Every checkpoint is a Hugging Face directory that resumes at any stage, number of ranks and precision, written beside training.',
  properties: {
    checkpoint: {
      type: 'object',
      default: {},
      description: 'Saving and loading of checkpoints.',
      properties: {
        tag_validation: {
          type: 'string',
          enum: ['Warn', 'Ignore', 'Fail'],
          ignoreCase: true,
          default: 'Warn',
          description:
            "What ranks do that give saveCheckpoint different tags: take rank 0's with a warning, take it without a word, or fail. They are always compared, and never save under two names.",
        },
        keep_last: {
          type: ['integer', 'null'],
          minimum: 1,
          default: null,
          description:
            'Checkpoints to keep in a directory: older ones are deleted once a new one is safe. null keeps all. A key of our own.',
        },
        load_universal: {
          type: 'boolean',
          default: false,
          description: 'Accepted without effect: every checkpoint loads at every stage and number of ranks.',
        },
        use_node_local_storage: {
          const: false,
          default: false,
          hint: 'all ranks write to one directory that all of them see, so that a checkpoint is whole wherever it is opened',
          description: 'Save to a disk of each node.',
        },
        parallel_write: {
          type: 'object',
          default: {},
          description: 'Who writes what.',
          properties: {
            pipeline_stage: {
              type: 'boolean',
              default: false,
              description: 'Accepted without effect: ranks always share the writing of weights.',
            },
          },
        },
        checkpoint_serialization: {
          type: 'boolean',
          default: true,
          description: 'Accepted without effect: it chooses a container of PyTorch; files are safetensors.',
        },
        writer: {
          type: ['object', 'null'],
          default: null,
          description:
            'The writer of files. There is one: threads that hash and write beside training, past the page cache where the file system can.',
          properties: {
            type: {
              type: 'string',
              enum: ['FAST', 'PYTHON'],
              ignoreCase: true,
              default: 'FAST',
              refused: { MOCK: 'it writes nothing, and a checkpoint that is not there can not be loaded' },
              description: 'Accepted without effect.',
            },
            decoupled: {
              type: 'boolean',
              default: false,
              description: 'Accepted without effect: training always goes on while files are written; await `finished` to wait for them.',
            },
            io_buffer_size: {
              type: 'integer',
              minimum: 1,
              default: 64 * 2 ** 20,
              description: 'Accepted without effect: a thread has 4 MiB to copy, hash and write at a time.',
            },
            io_buffer_double: {
              type: 'boolean',
              default: true,
              description: 'Accepted without effect: one thread hashes while another writes.',
            },
            io_multiplier: { type: 'integer', minimum: 1, default: 1, description: 'Accepted without effect.' },
            data_parallel: {
              type: ['string', 'null'],
              enum: ['REPLICA', null],
              default: null,
              refused: { SOCKET: EVERYONE_WRITES, MACHINE: EVERYONE_WRITES },
              description: 'Which ranks write: all of them.',
            },
            show_statistics: {
              type: 'boolean',
              default: false,
              description: 'Rank 0 prints size, time and rate of each checkpoint once it is safe.',
            },
          },
        },
      },
    },
  },
  unsupported: {
    datastates_ckpt: 'it is a checkpoint writer for Python; files are written beside training here too',
    nebula: {
      reason: 'it is a service of Azure; checkpoint.keep_last limits the versions that are kept',
      keys: ['persistent_storage_path', 'persistent_time_interval', 'num_of_version_in_retention', 'enable_nebula_load', 'load_path'],
    },
  },
});

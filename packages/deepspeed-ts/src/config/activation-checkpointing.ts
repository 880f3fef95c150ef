import { type ConfigOf, defineSection } from '@deepspeed-ts/core';

/** `activation_checkpointing`, with DeepSpeed's keys and two of our own: DeepSpeed leaves it to the model which blocks are recomputed. */
export const activationCheckpointingSection = defineSection({
  name: 'Activation checkpointing',
  summary:
    'Blocks of the model keep only their inputs for backward and are computed again there (https://arxiv.org/abs/1604.06174): less memory for a third more computation. Never changes the numbers.',
  properties: {
    activation_checkpointing: {
      type: 'object',
      default: {},
      description:
        'Honoured by models that run their blocks through throughBlocks(), as DecoderLM does; where their inputs wait, also by every checkpoint() of a model.',
      properties: {
        enabled: {
          type: ['boolean', 'null'],
          default: null,
          description:
            'Whether blocks are recomputed. null: yes where every_nth_block, number_checkpoints or cpu_checkpointing ask for something, else as the model says. Our own key: in DeepSpeed the model decides.',
        },
        every_nth_block: {
          type: 'integer',
          minimum: 1,
          default: 1,
          description: 'Recompute one block of this many and keep the activations of the others. Our own key.',
        },
        number_checkpoints: {
          type: ['integer', 'null'],
          minimum: 1,
          default: null,
          description:
            'Checkpoints that the blocks are made into, each of neighbours and as equal as can be; null: one for each block. Fewer hold less between passes, and more while one is recomputed.',
        },
        cpu_checkpointing: {
          type: 'boolean',
          default: false,
          description: 'Inputs of checkpoints wait in host memory. On a CPU that is the same memory, counted apart.',
        },
        partition_activations: {
          const: false,
          default: false,
          hint: 'it shares out what the ranks of one model-parallel group hold alike; data-parallel ranks hold activations of their own samples, none twice. cpu_checkpointing takes them off the device',
          description: 'Each rank of a model-parallel group keeps its part of an activation that all of them hold.',
        },
        contiguous_memory_optimization: {
          type: 'boolean',
          default: false,
          description: 'Accepted without effect: the allocator joins what is freed, so inputs of checkpoints leave no holes.',
        },
        synchronize_checkpoint_boundary: {
          type: 'boolean',
          default: false,
          description: 'Wait for the device before and after each checkpoint, in forward and in backward. For debugging; costs speed.',
        },
        profile: {
          type: 'boolean',
          default: false,
          description: 'Add the time of checkpoints in forward and in backward to each report. Waits for the device as the key above.',
        },
      },
    },
  },
  check({ activation_checkpointing: { every_nth_block, number_checkpoints } }, report) {
    if (every_nth_block > 1 && number_checkpoints !== null)
      report(
        'activation_checkpointing.number_checkpoints',
        `chooses among all blocks, every_nth_block = ${every_nth_block} among single ones; leave one of them out`,
      );
  },
});

export type ActivationCheckpointingConfig = ConfigOf<[typeof activationCheckpointingSection]>['activation_checkpointing'];

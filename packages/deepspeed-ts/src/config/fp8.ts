import { defineSection } from '@deepspeed-ts/core';

/** Products of linear layers in 8 bits; a section of our own. */
export const fp8Section = defineSection({
  name: 'Products in 8 bits',
  summary:
    'Linear layers multiply in 8-bit floats on GPUs that can: values in e4m3, gradients in e5m2, each tensor with a scale from the magnitudes of earlier steps. Everything else stays as bf16 has it.',
  properties: {
    fp8: {
      type: 'object',
      default: {},
      description: 'Linear layers in 8 bits, over bf16. Embeddings, norms, attention and the head stay in bf16.',
      properties: {
        enabled: {
          type: 'boolean',
          default: false,
          description: 'Multiply in 8 bits; wants bf16.enabled and a GPU with 8-bit tensor cores.',
        },
        amax_history_len: {
          type: 'integer',
          minimum: 1,
          maximum: 65536,
          default: 1024,
          description: 'Steps whose largest magnitudes count for a scale.',
        },
        amax_compute_algo: {
          type: 'string',
          enum: ['max', 'most_recent'],
          default: 'max',
          description: 'Which of these magnitudes sets the scale: the largest, or that of the last step.',
        },
        margin: {
          type: 'integer',
          minimum: 0,
          maximum: 16,
          default: 0,
          description: "Powers of two kept free between the largest magnitude and the end of a format's range.",
        },
        fast_backward: {
          type: 'boolean',
          default: false,
          description: 'Products of the backward pass add with fewer bits too, as those of the forward pass do: faster, less exact.',
        },
      },
    },
  },
  check({ fp8, ...others }, report) {
    const { bf16 } = others as { bf16?: { enabled: boolean } };
    if (fp8.enabled && !bf16?.enabled)
      report('fp8.enabled', 'expected "bf16": {"enabled": true} beside it; everything but the products is bf16');
  },
});

import { defineSection } from '@deepspeed-ts/core';

/** What the engine tells about itself. */
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
});

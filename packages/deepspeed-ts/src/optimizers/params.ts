// The `params` of each optimizer: keys and defaults are those of DeepSpeed, or of PyTorch where DeepSpeed passes them on.

const lr = { type: 'number', minimum: 0, default: 0.001, description: 'Learning rate; a scheduler may move it.' } as const;
const beta = { type: 'number', minimum: 0, exclusiveMaximum: 1 } as const;

/** Decay apart from the gradient. */
const decoupledDecay = {
  type: 'number',
  minimum: 0,
  default: 0,
  description: 'Share of a weight that decays per step, times lr.',
} as const;

/** Decay as a part of the gradient. */
const gradientDecay = { type: 'number', minimum: 0, default: 0, description: 'Times the weight, added to its gradient (L2).' } as const;

export const adamParams = {
  type: 'object',
  default: {},
  description: 'Adam (https://arxiv.org/abs/1412.6980) with decoupled weight decay (https://arxiv.org/abs/1711.05101).',
  properties: {
    lr,
    betas: {
      type: 'array',
      items: [beta, beta],
      default: [0.9, 0.999],
      description: 'Decay of the running mean of the gradient and of its square.',
    },
    eps: { type: 'number', minimum: 0, default: 1e-8, description: 'Added to the root of the second moment.' },
    weight_decay: decoupledDecay,
    adam_w_mode: {
      type: 'boolean',
      default: true,
      description: 'For type "Adam": false adds the decay to the gradient (L2) instead of to the weight.',
    },
    bias_correction: {
      const: true,
      default: true,
      hint: 'the moments are always corrected for starting at zero',
      description: 'Corrects the moments of the first steps.',
    },
    torch_adam: {
      type: 'boolean',
      default: false,
      description: "Accepted without effect: it chooses between PyTorch's kernel and DeepSpeed's, and there is one here.",
    },
  },
} as const;

export const sgdParams = {
  type: 'object',
  default: {},
  description: 'Gradient descent with momentum, as in PyTorch.',
  properties: {
    lr,
    momentum: { ...beta, default: 0, description: 'Share of the last update that the next one keeps; 0 takes no memory for it.' },
    dampening: { type: 'number', minimum: 0, default: 0, description: 'How much less than whole a gradient enters the momentum.' },
    weight_decay: gradientDecay,
    nesterov: { type: 'boolean', default: false, description: "Nesterov's momentum, which looks one step ahead." },
  },
} as const;

export const adagradParams = {
  type: 'object',
  default: {},
  description: 'Adagrad (https://jmlr.org/papers/v12/duchi11a.html), as in PyTorch.',
  properties: {
    lr: { ...lr, default: 0.01 },
    lr_decay: { type: 'number', minimum: 0, default: 0, description: 'Step t uses lr / (1 + (t - 1) lr_decay).' },
    weight_decay: gradientDecay,
    initial_accumulator_value: { type: 'number', minimum: 0, default: 0, description: 'What the sum of squared gradients begins with.' },
    eps: { type: 'number', minimum: 0, default: 1e-10, description: 'Added to the root of the sum.' },
  },
} as const;

export const lionParams = {
  type: 'object',
  default: {},
  description: 'Lion (https://arxiv.org/abs/2302.06675): steps of equal size against the sign of the momentum.',
  properties: {
    lr,
    betas: {
      type: 'array',
      items: [beta, beta],
      default: [0.9, 0.999],
      description: 'Share of the momentum in the step, and in the next momentum.',
    },
    weight_decay: decoupledDecay,
  },
} as const;

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

const betas = {
  type: 'array',
  items: [beta, beta],
  default: [0.9, 0.999],
  description: 'Decay of the running mean of the gradient and of its square.',
} as const;

const eps = { type: 'number', minimum: 0, default: 1e-8, description: 'Added to the root of the second moment.' } as const;

const biasCorrection = {
  type: 'boolean',
  default: true,
  description: 'Corrects the moments of the first steps for having begun at zero.',
} as const;

export const adamParams = {
  type: 'object',
  default: {},
  description: 'Adam (https://arxiv.org/abs/1412.6980) with decoupled weight decay (https://arxiv.org/abs/1711.05101).',
  properties: {
    lr,
    betas,
    eps,
    weight_decay: decoupledDecay,
    adam_w_mode: {
      type: 'boolean',
      default: true,
      description: 'For type "Adam": false adds the decay to the gradient (L2) instead of to the weight.',
    },
    bias_correction: biasCorrection,
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

export const adam8bitParams = {
  type: 'object',
  default: {},
  description:
    'AdamW with both moments in 8 bits, a scale for each 256 of them (https://arxiv.org/abs/2110.02861). Ours: DeepSpeed has none.',
  properties: {
    lr,
    betas,
    eps,
    weight_decay: decoupledDecay,
    bias_correction: biasCorrection,
    min_8bit_size: {
      type: 'integer',
      minimum: 0,
      default: 4096,
      description: 'Parameters of fewer elements keep moments in 32 bits.',
    },
    f32_embeddings: {
      type: 'boolean',
      default: true,
      description: 'Embeddings and the head keep moments in 32 bits, as the paper advises.',
    },
  },
} as const;

export const lambParams = {
  type: 'object',
  default: {},
  description:
    'LAMB (https://arxiv.org/abs/1904.00962): Adam with a step scaled by the norm of weights over that of the update, for each parameter.',
  properties: {
    lr,
    betas,
    eps,
    weight_decay: { ...decoupledDecay, description: 'Times the weight, added to the update before it is scaled.' },
    max_coeff: { type: 'number', exclusiveMinimum: 0, default: 10, description: 'Largest ratio of the norms.' },
    min_coeff: { type: 'number', minimum: 0, default: 0.01, description: 'Smallest ratio of the norms.' },
    bias_correction: biasCorrection,
    eps_inside_sqrt: { type: 'boolean', default: false, description: 'Adds eps to the second moment instead of to its root.' },
  },
} as const;

export const muonParams = {
  type: 'object',
  default: {},
  description:
    'Muon (https://kellerjordan.github.io/posts/muon) for hidden matrices: momentum, orthogonalised. Embeddings, the head, norms and biases get AdamW.',
  properties: {
    lr: { ...lr, description: 'Learning rate of both, where muon_lr or adam_lr is not given; a scheduler may move it.' },
    muon_lr: { type: ['number', 'null'], minimum: 0, default: null, description: 'Learning rate of the matrices; null takes lr.' },
    adam_lr: { type: ['number', 'null'], minimum: 0, default: null, description: 'Learning rate of all others; null takes lr.' },
    momentum: { ...beta, default: 0.95, description: 'Share of the last momentum that the next one keeps.' },
    nesterov: { type: 'boolean', default: true, description: "Nesterov's momentum, which looks one step ahead." },
    weight_decay: decoupledDecay,
    betas: { ...betas, default: [0.9, 0.95], description: "AdamW's: decay of the running mean of the gradient and of its square." },
    eps: { ...eps, default: 1e-10, description: "AdamW's: added to the root of the second moment." },
    ns_steps: { type: 'integer', minimum: 1, default: 5, description: 'Rounds of Newton-Schulz iteration.' },
    ns_method: {
      enum: ['gram', 'standard'],
      default: 'gram',
      description: 'Accepted without effect: both name one polynomial, which is iterated on the matrix here.',
    },
  },
} as const;

import type { Parameter } from '../nn/parameter.js';
import { randomContext, withRandom } from '../random/context.js';
import { scope } from '../tensor/scope.js';
import type { Tensor } from '../tensor/tensor.js';
import { withParameterUses } from './apply.js';
import { backwardFrom, type Seed } from './backward.js';
import { type CheckpointPolicy, checkpointPolicy, withCheckpointPolicy } from './checkpoint-policy.js';
import { watch } from './leaf.js';
import { isRecording, noGrad, withRecording } from './mode.js';
import { type Edge, GradNode } from './node.js';
import { Parked } from './parked.js';

type Body = (...inputs: Tensor[]) => Tensor | Tensor[];

/** What a checkpoint runs under, now and when it runs again. */
interface Circumstances {
  readonly random: ReturnType<typeof randomContext>;
  readonly policy: CheckpointPolicy;
}

/**
 * Runs `body` without keeping what its backward pass would need, and runs it again when that time comes (Chen et al., "Training
 * deep nets with sublinear memory cost", arXiv:1604.06174). Random ops draw the same bits both times. Where the inputs wait, the policy of
 * the run says.
 */
export function checkpoint(body: Body, ...inputs: Tensor[]): Tensor | Tensor[] {
  return checkpointBeside(body, inputs, []);
}

/** As `checkpoint`; the body gets `beside` after the inputs: tensors that many checkpoints share, which stay where they are. */
export function checkpointBeside(body: Body, own: readonly Tensor[], beside: readonly Tensor[]): Tensor | Tensor[] {
  const inputs = [...own, ...beside];
  if (!isRecording()) return body(...inputs);
  const policy = checkpointPolicy();
  const random = { ...randomContext() };
  const { result, parameters } = around(policy, 'forward', () => withParameterUses(() => noGrad(() => scope(() => body(...inputs)))));
  policy.made?.();
  // What the body hands on as it got it has a history of its own.
  const outputs = (Array.isArray(result) ? result : [result]).map((output) => (inputs.includes(output) ? detached(output) : output));
  const onHost = policy.onHost ?? false;
  const parked = inputs.map((input, i) => new Parked(input, onHost && i < own.length));
  const node = new CheckpointNode(body, inputs, parked, outputs, [...parameters], { random, policy });
  for (const [i, output] of outputs.entries()) {
    output.node = node.retain();
    output.nodeOutput = i;
  }
  return Array.isArray(result) ? outputs : outputs[0]!;
}

/** The same elements without history. */
function detached(tensor: Tensor): Tensor {
  const view = tensor.view(tensor.shape);
  view.node?.release();
  view.node = null;
  return view;
}

class CheckpointNode extends GradNode {
  readonly #body: Body;
  readonly #circumstances: Circumstances;
  #inputs: readonly Parked[];

  constructor(
    body: Body,
    inputs: readonly Tensor[],
    parked: readonly Parked[],
    outputs: readonly Tensor[],
    uses: readonly Parameter[],
    circumstances: Circumstances,
  ) {
    // Parameters after the inputs: held here, so that they are not called final before the block has been recomputed.
    super(
      [...inputs.map((input): Edge => (input.node ? { node: input.node, output: input.nodeOutput } : null)), ...uses],
      outputs.map(({ shape }) => shape),
    );
    this.#body = body;
    this.#circumstances = circumstances;
    this.#inputs = parked;
  }

  backward(grads: readonly (Tensor | undefined)[]): (Tensor | undefined)[] {
    const { random, policy } = this.#circumstances;
    const run = () =>
      scope(() => {
        const inputs = this.#inputs.map((parked) => parked.fetch());
        const leaves = inputs.map((input, i) => (this.edges[i] ? watch(input) : { tensor: input, leaf: undefined }));
        const body = () => this.#body(...leaves.map(({ tensor }) => tensor));
        const result = withRecording(true, () => withRandom(random, body));
        const seeds: Seed[] = [];
        for (const [i, output] of (Array.isArray(result) ? result : [result]).entries()) {
          const gradient = grads[i];
          if (gradient && output.node) seeds.push({ node: output.node, output: output.nodeOutput, gradient: gradient.retain() });
        }
        backwardFrom(seeds);
        return { gradients: leaves.map(({ leaf }) => leaf?.gradient) };
      }).gradients;
    return around(policy, 'backward', () => withCheckpointPolicy(policy, run));
  }

  freeSaved(): void {
    for (const input of this.#inputs) input.dispose();
    this.#inputs = [];
  }
}

function around<T>(policy: CheckpointPolicy, phase: 'forward' | 'backward', work: () => T): T {
  return policy.around ? policy.around(phase, work) : work();
}

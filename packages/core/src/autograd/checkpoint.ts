import type { Parameter } from '../nn/parameter.js';
import { randomContext, withRandom } from '../random/context.js';
import { scope } from '../tensor/scope.js';
import type { Tensor } from '../tensor/tensor.js';
import { withParameterUses } from './apply.js';
import { backwardFrom, type Seed } from './backward.js';
import { watch } from './leaf.js';
import { isRecording, noGrad, withRecording } from './mode.js';
import { type Edge, GradNode } from './node.js';

type Body = (...inputs: Tensor[]) => Tensor | Tensor[];

/**
 * Runs `body` without keeping what its backward pass would need, and runs it again when that time comes (Chen et al., "Training
 * deep nets with sublinear memory cost", arXiv:1604.06174). Random ops draw the same bits both times.
 */
export function checkpoint(body: Body, ...inputs: Tensor[]): Tensor | Tensor[] {
  if (!isRecording()) return body(...inputs);
  const random = { ...randomContext() };
  const { result, parameters } = withParameterUses(() => noGrad(() => scope(() => body(...inputs))));
  const outputs = Array.isArray(result) ? result : [result];
  const node = new CheckpointNode(body, inputs, outputs, [...parameters], random);
  for (const [i, output] of outputs.entries()) {
    output.node = node.retain();
    output.nodeOutput = i;
  }
  return result;
}

class CheckpointNode extends GradNode {
  readonly #body: Body;
  readonly #random: ReturnType<typeof randomContext>;
  #inputs: Tensor[];

  constructor(
    body: Body,
    inputs: readonly Tensor[],
    outputs: readonly Tensor[],
    uses: readonly Parameter[],
    random: ReturnType<typeof randomContext>,
  ) {
    // Parameters after the inputs: held here, so that they are not called final before the block has been recomputed.
    super(
      [...inputs.map((input): Edge => (input.node ? { node: input.node, output: input.nodeOutput } : null)), ...uses],
      outputs.map(({ shape }) => shape),
    );
    this.#body = body;
    this.#random = random;
    this.#inputs = inputs.map((input) => input.retain());
  }

  backward(grads: readonly (Tensor | undefined)[]): (Tensor | undefined)[] {
    return scope(() => {
      const leaves = this.#inputs.map((input, i) => (this.edges[i] ? watch(input) : { tensor: input, leaf: undefined }));
      const run = () => this.#body(...leaves.map(({ tensor }) => tensor));
      const result = withRecording(true, () => withRandom(this.#random, run));
      const seeds: Seed[] = [];
      for (const [i, output] of (Array.isArray(result) ? result : [result]).entries()) {
        const gradient = grads[i];
        if (gradient && output.node) seeds.push({ node: output.node, output: output.nodeOutput, gradient: gradient.retain() });
      }
      backwardFrom(seeds);
      return { gradients: leaves.map(({ leaf }) => leaf?.gradient) };
    }).gradients;
  }

  freeSaved(): void {
    for (const input of this.#inputs) input.dispose();
    this.#inputs = [];
  }
}

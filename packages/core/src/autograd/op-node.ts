import { Parameter } from '../nn/parameter.js';
import type { Attrs, GradientTarget, Op, VjpContext } from '../ops/define-op.js';
import { empty } from '../tensor/create.js';
import { untrack } from '../tensor/scope.js';
import { Tensor, type TensorSpec } from '../tensor/tensor.js';
import { type Edge, GradNode } from './node.js';

/** A recorded op: what its vjp asked to keep, and where the gradients go. */
export class OpNode<A extends Attrs> extends GradNode {
  readonly #inputs = new Map<number, Tensor | Parameter>();
  readonly #outputs = new Map<number, Tensor>();
  readonly #inputSpecs: TensorSpec[];

  constructor(
    readonly op: Op<A>,
    readonly attrs: A,
    inputs: readonly (Tensor | Parameter)[],
    outputs: readonly Tensor[],
    edges: readonly Edge[],
  ) {
    super(
      edges,
      outputs.map(({ shape }) => shape),
    );
    this.#inputSpecs = inputs.map(({ shape, dtype }) => ({ shape, dtype }));
    for (const i of op.saves?.inputs ?? []) {
      const input = inputs[i];
      if (input) this.#inputs.set(i, input instanceof Parameter ? input : input.retain());
    }
    for (const i of op.saves?.outputs ?? []) {
      const output = outputs[i];
      if (output) this.#outputs.set(i, output.retain());
    }
  }

  backward(grads: readonly (Tensor | undefined)[]): (Tensor | undefined)[] {
    const results: (Tensor | undefined)[] = new Array(this.edges.length);
    const borrowed: Parameter[] = [];
    const context: VjpContext<A> = {
      attrs: this.attrs,
      inputSpecs: this.#inputSpecs,
      input: (i) => {
        const saved = this.#inputs.get(i);
        if (!saved) throw new Error(`[${this.op.name}] vjp reads input ${i}, which 'saves' does not list`);
        if (saved instanceof Tensor) return saved;
        borrowed.push(saved);
        return saved.use();
      },
      output: (i) => {
        const saved = this.#outputs.get(i);
        if (!saved) throw new Error(`[${this.op.name}] vjp reads output ${i}, which 'saves' does not list`);
        return saved;
      },
      grad: (i) => grads[i],
      wants: (i) => this.edges[i] != null,
      into: (i) => {
        const edge = this.edges[i];
        if (edge && !('node' in edge)) return edge.gradientTarget();
        const { shape, dtype } = this.#inputSpecs[i]!;
        const tensor = empty(grads.find((grad) => grad)!.device, shape, dtype);
        results[i] = tensor;
        return { tensor, accumulate: 0 } satisfies GradientTarget;
      },
      give: (i, gradient) => {
        const edge = this.edges[i];
        if (!edge) return;
        if ('node' in edge) results[i] = gradient.retain();
        else edge.addGradient(gradient);
      },
    };
    try {
      this.op.vjp!(context);
    } finally {
      for (const parameter of borrowed) parameter.done();
    }
    for (const result of results) if (result) untrack(result);
    return results;
  }

  freeSaved(): void {
    for (const saved of this.#inputs.values()) if (saved instanceof Tensor) saved.dispose();
    for (const saved of this.#outputs.values()) saved.dispose();
    this.#inputs.clear();
    this.#outputs.clear();
  }
}

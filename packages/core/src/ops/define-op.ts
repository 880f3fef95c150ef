import type { FloatDType } from '../dtype.js';
import type { HostTensor } from '../tensor/host.js';
import type { Tensor, TensorSpec } from '../tensor/tensor.js';
import type { Random } from './random-samples.js';
import { registerReference } from './registry.js';

/** Numbers only: flags are 0 or 1, so that attributes cross to native code as an array of doubles. */
export type Attrs = Readonly<Record<string, number>>;

/** Where a gradient goes: a parameter's gradient buffer (added to when `accumulate`), or a fresh tensor. */
export interface GradientTarget {
  readonly tensor: Tensor;
  readonly accumulate: 0 | 1;
}

export interface VjpContext<A extends Attrs> {
  readonly attrs: A;
  /** Shape and dtype of every input, saved or not. */
  readonly inputSpecs: readonly TensorSpec[];
  /** An input that the op declared in `saves`. Parameters are fetched from their store. */
  input(index: number): Tensor;
  /** An output that the op declared in `saves`. */
  output(index: number): Tensor;
  /** Gradient of an output; `undefined` where nothing flowed back to it. */
  grad(index: number): Tensor | undefined;
  /** Whether input `index` wants a gradient. */
  wants(index: number): boolean;
  /** Space to write the gradient of input `index` into. Call once for each wanted input that `give` is not used for. */
  into(index: number): GradientTarget;
  /** Hands over an existing tensor as the gradient of input `index`. */
  give(index: number, gradient: Tensor): void;
}

export interface Sample<A extends Attrs> {
  readonly inputs: HostTensor[];
  readonly attrs: A;
  /** For ops that read what they write. Default: what `infer` says, filled with zeros. */
  readonly outputs?: HostTensor[];
  /** Inputs whose gradient is compared with finite differences; default: all of float dtype. */
  readonly differentiable?: number[];
  readonly note?: string;
}

export interface OpDefinition<A extends Attrs> {
  readonly name: string;
  /** Attribute names in the order in which kernels receive them. */
  readonly attrs: readonly (keyof A & string)[];
  /** Shape and dtype rule. Throws a ShapeError that names op, expected and got. */
  infer(inputs: readonly TensorSpec[], attrs: A): TensorSpec[];
  /** The specification: a plain loop in doubles. Writes `outputs`, which hold the present contents. */
  reference(inputs: HostTensor[], attrs: A, outputs: HostTensor[]): void;
  /**
   * The op by other ops, for backends that have no kernel of it; without this, its reference runs. Borrowed tensors; what it
   * makes beyond `outputs` it frees.
   */
  compose?(inputs: readonly Tensor[], attrs: A, outputs: readonly Tensor[]): void;
  /** Gradients of the inputs, by other ops. Absent: no gradient flows. */
  vjp?(context: VjpContext<A>): void;
  /** What `vjp` reads; everything else is freed after the forward pass. */
  readonly saves?: { readonly inputs?: readonly number[]; readonly outputs?: readonly number[] };
  /**
   * The input whose memory the first output may take, where nobody else holds it: an op that adds to what it gets. Kernels and `compose`
   * bear both, one memory or two.
   */
  readonly takesOver?: number;
  /** Cases for the op contract: every backend is compared with the reference on them. */
  samples(random: Random): Sample<A>[];
  /** Float dtypes that the op means to support; default all three. */
  readonly dtypes?: readonly FloatDType[];
  /** Relative tolerance of kernels in f32 against the reference; default 1e-5. */
  readonly tolerance?: number;
  /** For outputs that are codes of rounded values: by how many steps a kernel's may differ. Default 0. */
  readonly codeSteps?: number;
}

export type Op<A extends Attrs = Attrs> = OpDefinition<A>;

/** Everything about an op but its kernels. One op, one file; list it in `ops/index.ts`. */
export function defineOp<A extends Attrs>(definition: OpDefinition<A>): Op<A> {
  registerReference(definition.name, {
    run(inputs, values, outputs) {
      const attrs = Object.fromEntries(definition.attrs.map((key, i) => [key, values[i]!])) as unknown as A;
      definition.reference(inputs, attrs, outputs);
    },
  });
  return definition;
}

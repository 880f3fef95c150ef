import type { Parameter } from '../nn/parameter.js';
import { executionObserver } from '../observe.js';
import type { Shape, Tensor } from '../tensor/tensor.js';

/** What an input of a recorded operation leads back to: the node that made it, a parameter, or nothing. */
export type Edge = { readonly node: GradNode; readonly output: number } | Parameter | null;

let nextId = 0;

/**
 * One recorded operation. Nodes are counted like buffers: a tensor owns the node that made it, a node owns those of its inputs.
 * So a graph that is never run backward is freed when its last tensor is.
 */
export abstract class GradNode {
  /** Grows in the order of recording, which is a topological order. */
  readonly id = nextId++;
  /** Gradients of the outputs that have arrived so far in a backward pass. */
  grads: (Tensor | undefined)[] = [];
  #owners = 0;

  constructor(
    readonly edges: readonly Edge[],
    /** Shapes of the outputs. A view of an output shares its node, so gradients may arrive under the view's shape. */
    readonly outputShapes: readonly Shape[],
  ) {
    for (const edge of edges) if (edge && 'node' in edge) edge.node.retain();
    executionObserver()?.recorded(this);
  }

  retain(): this {
    this.#owners++;
    return this;
  }

  release(): void {
    if (--this.#owners > 0) return;
    this.freeSaved();
    for (const grad of this.grads) grad?.dispose();
    this.grads = [];
    for (const edge of this.edges) if (edge && 'node' in edge) edge.node.release();
  }

  /** Parameters that this node will write gradients of, once for each use. */
  *parameters(): Generator<Parameter> {
    for (const edge of this.edges) if (edge && !('node' in edge)) yield edge;
  }

  /**
   * Turns the gradients of the outputs into gradients of the inputs, by edge. Gradients of parameters are written to their
   * store and not returned. The caller disposes the results.
   */
  abstract backward(grads: readonly (Tensor | undefined)[]): (Tensor | undefined)[];

  /** Lets go of what was saved for `backward`. Called as soon as that is done; must bear being called twice. */
  abstract freeSaved(): void;
}

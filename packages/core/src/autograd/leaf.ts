import type { Shape, Tensor } from '../tensor/tensor.js';
import { GradNode } from './node.js';

/** The end of a graph at a plain tensor: keeps the gradient that arrives. */
export class Leaf extends GradNode {
  gradient: Tensor | undefined;

  constructor(shape: Shape) {
    super([], [shape]);
  }

  backward(grads: readonly (Tensor | undefined)[]): (Tensor | undefined)[] {
    this.gradient = grads[0]?.retain();
    return [];
  }

  freeSaved(): void {}
}

/** Makes a tensor that wants a gradient, sharing storage with `source`. After `backward` the leaf holds it; its reader disposes it. */
export function watch(source: Tensor): { tensor: Tensor; leaf: Leaf } {
  const leaf = new Leaf(source.shape);
  const tensor = source.view(source.shape);
  tensor.node?.release();
  tensor.node = leaf.retain();
  tensor.nodeOutput = 0;
  return { tensor, leaf };
}

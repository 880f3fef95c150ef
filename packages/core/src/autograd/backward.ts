import { DeepSpeedError, ShapeError } from '../errors.js';
import type { Parameter } from '../nn/parameter.js';
import { executionObserver } from '../observe.js';
import { addInto } from '../ops/add.js';
import { full } from '../tensor/create.js';
import { scope, untrack } from '../tensor/scope.js';
import type { Shape, Tensor } from '../tensor/tensor.js';
import { isRecording, noGrad } from './mode.js';
import type { GradNode } from './node.js';

/** Uses of parameters whose gradient is still to come, over the whole pass (nested passes of `checkpoint` share it). */
let outstanding: Map<Parameter, number> | null = null;

/**
 * Back-propagates from `root` (any shape) with the given gradient of it; default 1 for a scalar. Consumes the graph: what was
 * saved is freed as the pass goes. Gradients of parameters land in their store, which hears `onGradient` when one is final.
 */
export function backward(root: Tensor, gradient?: Tensor): void {
  root.assertAlive();
  if (!root.node) {
    const why = isRecording() ? 'nothing it was computed from wants a gradient' : 'it was made under noGrad()';
    throw new DeepSpeedError('ERR_NO_GRADIENT', `[backward] the tensor has no history: ${why}`);
  }
  if (!gradient && root.numel !== 1) {
    throw new DeepSpeedError(
      'ERR_NO_GRADIENT',
      `[backward] a tensor of shape [${root.shape.join(', ')}] needs a gradient of the same shape; only a scalar defaults to 1`,
    );
  }
  if (gradient && gradient.numel !== root.numel) {
    throw new ShapeError('backward', `a gradient of shape [${root.shape.join(', ')}]`, `[${gradient.shape.join(', ')}]`);
  }
  backwardFrom([
    { node: root.node, output: root.nodeOutput, gradient: gradient?.retain() ?? untracked(full(root.device, root.shape, root.dtype, 1)) },
  ]);
}

export interface Seed {
  readonly node: GradNode;
  readonly output: number;
  /** Owned by the pass from here on. */
  readonly gradient: Tensor;
}

export function backwardFrom(seeds: readonly Seed[]): void {
  noGrad(() => {
    const order = reachable(seeds.map(({ node }) => node));
    for (const node of order) node.retain();
    const outermost = outstanding === null;
    outstanding ??= new Map();
    for (const node of order) for (const parameter of node.parameters()) count(parameter, 1);
    try {
      for (const { node, output, gradient } of seeds) deliver(node, output, gradient);
      const observer = executionObserver();
      for (const node of order) {
        if (observer) observer.backward(node, () => step(node));
        else step(node);
      }
    } finally {
      for (const node of order) node.release();
      if (outermost) outstanding = null;
    }
  });
}

/** Runs one node if any gradient reached it, passes the results on, and settles its parameters. */
function step(node: GradNode): void {
  const { grads } = node;
  if (grads.some((grad) => grad)) {
    scope(() => {
      const results = node.backward(grads);
      // Before the results go on: a gradient that was only handed through has one owner then, and can be added to in place.
      for (const grad of grads) grad?.dispose();
      node.freeSaved();
      for (const [i, result] of results.entries()) {
        const edge = node.edges[i];
        if (!result) continue;
        if (edge && 'node' in edge) deliver(edge.node, edge.output, result);
        else result.dispose();
      }
    });
  }
  // Only now: where the node has failed, its last owner finds and frees them.
  node.grads = [];
  node.freeSaved();
  for (const parameter of node.parameters()) {
    if (count(parameter, -1) === 0) parameter.gradientFinal();
  }
}

/** Adds a gradient that arrives at an output. Takes over its count. */
function deliver(node: GradNode, output: number, gradient: Tensor): void {
  const present = node.grads[output];
  const shaped = shapedAs(node.outputShapes[output]!, gradient);
  node.grads[output] = present ? addInto(present, shaped) : shaped;
}

function count(parameter: Parameter, change: number): number {
  const n = (outstanding!.get(parameter) ?? 0) + change;
  outstanding!.set(parameter, n);
  return n;
}

/** All nodes that lead to the seeds, latest first. */
function reachable(roots: readonly GradNode[]): GradNode[] {
  const seen = new Set<GradNode>(roots);
  const stack = [...seen];
  for (let node = stack.pop(); node; node = stack.pop()) {
    for (const edge of node.edges) {
      if (edge && 'node' in edge && !seen.has(edge.node)) {
        seen.add(edge.node);
        stack.push(edge.node);
      }
    }
  }
  return [...seen].sort((a, b) => b.id - a.id);
}

function shapedAs(shape: Shape, gradient: Tensor): Tensor {
  if (shape.length === gradient.shape.length && shape.every((size, i) => size === gradient.shape[i])) return gradient;
  const view = gradient.view(shape).keep();
  gradient.dispose();
  return view;
}

function untracked(tensor: Tensor): Tensor {
  untrack(tensor);
  return tensor;
}

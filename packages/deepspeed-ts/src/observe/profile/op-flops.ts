import type { View } from '@deepspeed-ts/core';

/** Floating-point operations of a launch; where a kernel does in the forward pass what others do in backward, that is told apart. */
export interface OpFlops {
  readonly own: number;
  /** Part of the backward pass, though it runs in the forward one. */
  readonly backward: number;
}

type Attrs = Readonly<Record<string, number>>;
type Rule = (inputs: readonly View[], outputs: readonly View[], attrs: Attrs) => number | OpFlops;

const numel = ({ shape }: View) => shape.reduce((product, size) => product * size, 1);
const columns = ({ shape }: View) => shape.at(-1) ?? 1;
const rows = (view: View) => numel(view) / columns(view);
const sum = (views: readonly View[]) => views.reduce((total, view) => total + numel(view), 0);

/** [..., I] times weights of O outputs in all, read from y [..., O]: 2 R I O. */
const forwardProduct: Rule = ([x], [y]) => 2 * numel(y!) * columns(x!);
/** dy [..., O] times the weights, read from dx [..., I]. */
const inputGradient: Rule = ([dy], [dx]) => 2 * numel(dy!) * columns(dx!);

/** Scores and weighted values of heads, of the keys that each query sees. */
function attentionForward(batch: number, tokens: number, { heads = 1, headDim = 1, causal = 0, window = 0 }: Attrs): number {
  return 4 * batch * heads * headDim * pairs(tokens, causal, window);
}

/** Pairs of query and key of a sequence; half of T^2 where attention is causal, as the convention has it (the diagonal counts half). */
function pairs(tokens: number, causal: number, window: number): number {
  const all = causal ? (tokens * tokens) / 2 : tokens * tokens;
  if (!window || window >= tokens) return all;
  return causal ? window * tokens - (window * window) / 2 : all;
}

/** The head: logits, and with them two products of the same size for the gradients. */
const head = (x: View, w: View) => 2 * rows(x) * numel(w);

/**
 * Model FLOPs by op: a multiply-add counts 2, products and attention count, what is elementwise does not. Work that backward does again
 * (attention's scores, the head's logits) does not count either: it is the kernel's choice, not the model's.
 */
const RULES: Readonly<Record<string, Rule>> = {
  linear: forwardProduct,
  linear_gelu: forwardProduct,
  linear_dx: ([dy, ...weights]) => 2 * rows(dy!) * sum(weights),
  linear_add: ([x, w]) => 2 * rows(x!) * numel(w!),
  linear_dx_gelu: inputGradient,
  linear_gelu_backward: inputGradient,
  linear_dw: ([dy], gradients) => 2 * rows(dy!) * sum(gradients),
  // Of the experts that tokens went to: rows by place are as many as assignments.
  expert_linear: forwardProduct,
  expert_linear_dx: ([dy], [dx]) => 2 * numel(dx!) * columns(dy!),
  expert_linear_dw: ([, , order], [dw]) => 2 * numel(order!) * numel(dw!),
  matmul: ([a], [y], { transA }) => 2 * numel(y!) * a!.shape.at(transA ? -2 : -1)!,
  fp8_matmul: ([a], outputs) => 2 * sum(outputs) * columns(a!),
  attention: ([qkv], _, attrs) => attentionForward(qkv!.shape[0]!, qkv!.shape[1]!, attrs),
  attention_backward: ([, qkv], _, attrs) => 2 * attentionForward(qkv!.shape[0]!, qkv!.shape[1]!, attrs),
  linear_cross_entropy: ([x, w]) => head(x!, w!),
  linear_cross_entropy_backward: ([, x, w], gradients) => gradients.length * head(x!, w!),
  linear_cross_entropy_fused: ([x, w]) => ({ own: head(x!, w!), backward: 2 * head(x!, w!) }),
};

export function opFlops(op: string, inputs: readonly View[], outputs: readonly View[], attrs: Attrs): OpFlops {
  const flops = RULES[op]?.(inputs, outputs, attrs) ?? 0;
  return typeof flops === 'number' ? { own: flops, backward: 0 } : flops;
}

import { type Module, namedModules, Parameter } from '@deepspeed-ts/core';
import { DecoderLM } from '@deepspeed-ts/transformers';

/**
 * Model FLOPs of forward and backward for one token of a sequence, the convention of MFU here:
 *
 *   6 * matmul parameters + 6 * layers * attention width * tokens
 *
 * A weight of a product costs 2 FLOPs forward and 4 backward; causal attention 2 * width * tokens forward and twice that backward, per layer
 * and token (half of what the full square would). Recomputation is not the model's work and does not count (as Chowdhery et al., PaLM,
 * arXiv:2204.02311, appendix B, who count the full square). Embedding tables count once where they are the head as well. A sliding window
 * of attention is not taken into account.
 *
 * @returns undefined for models that are not decoders, whose FLOPs nobody knows beforehand
 */
export function flopsPerToken(model: Module, tokens: number): number | undefined {
  if (!(model instanceof DecoderLM)) return undefined;
  const { layers, heads, headDim } = model.config;
  return 6 * matmulParameters(model) + 6 * layers * heads * headDim * tokens;
}

/**
 * Elements of the matrices that a token is multiplied by: tables that are only looked up in do not count (of embeddings only one that is the
 * head too), and of experts as many as a token uses.
 */
export function matmulParameters(model: DecoderLM): number {
  const { names, tieEmbeddings, positions } = model.config;
  const lookedUp = new Set<string>();
  if (!tieEmbeddings) lookedUp.add(`${names.base}.${names.embed}.weight`);
  if (positions.kind === 'learned') lookedUp.add(`${names.base}.${names.positions}.weight`);
  let total = 0;
  const seen = new Set<Parameter>();
  for (const [path, module] of namedModules(model)) {
    for (const [name, child] of module.children()) {
      if (!(child instanceof Parameter) || seen.has(child)) continue;
      seen.add(child);
      if (child.shape.length === 2 && !lookedUp.has(`${path}.${name}`)) total += child.numel;
    }
  }
  return total - idleParameters(model);
}

/** Of the experts that a token does not use. */
function idleParameters({ config: { experts, layers, dim, mlpDim } }: DecoderLM): number {
  return experts ? layers * (experts.count - experts.perToken) * 3 * dim * mlpDim : 0;
}

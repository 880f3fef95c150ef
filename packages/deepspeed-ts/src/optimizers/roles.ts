import { Embedding, type Module, namedModules, type Parameter } from '@deepspeed-ts/core';
import type { ParameterGroups } from '../engine/optimizer.js';

/**
 * For `parameterGroups` of `initialize`: no weight decay for parameters of fewer than two axes, which are the weights of norms and all biases.
 *
 * @example await initialize({ model, config, parameterGroups: noDecayForNormsAndBiases });
 */
export const noDecayForNormsAndBiases: ParameterGroups = (_, { shape }) => (shape.length < 2 ? { weightDecay: 0 } : undefined);

/** Whether a parameter is a table of embeddings or the head of the vocabulary: by module, or by the names that Hugging Face gives them. */
export function embeddingsOf(model: Module): (name: string, parameter: Parameter) => boolean {
  const tables = new Set<Parameter>();
  for (const [, module] of namedModules(model)) if (module instanceof Embedding) tables.add(module.weight);
  return (name, parameter) => tables.has(parameter) || /embed|lm_head/.test(name);
}

import { Embedding, Linear, type Module, namedModules, nearest } from '@deepspeed-ts/core';
import type { FullLoraConfig } from './config.js';
import { PeftError } from './errors.js';

/**
 * The layers that get an adapter, by name, in the model's order.
 *
 * @throws PeftError where a name matches nothing, or something that can have no adapter
 */
export function targetsOf(model: Module, config: FullLoraConfig): Map<string, Linear> {
  const modules = [...namedModules(model)];
  const wanted = ([name, module]: readonly [string, Module]) =>
    config.targetModules === 'all-linear' ? module instanceof Linear && !module.isUnit : matches(config.targetModules, name);
  const { excludeModules } = config;
  const chosen = modules.filter(
    (entry) => wanted(entry) && !(excludeModules && matches(excludeModules, entry[0])) && isInLayers(config, entry[0]),
  );
  const layers = new Map<string, Linear>();
  for (const [name, module] of chosen) {
    if (!(module instanceof Linear) || module.isUnit) {
      const what = module instanceof Embedding ? 'an embedding' : module instanceof Linear ? 'the head' : 'no linear layer';
      throw new PeftError(
        'ERR_PEFT_CONFIG',
        `targetModules: ${name} is ${what}; adapters are for linear layers, modulesToSave trains it whole`,
      );
    }
    layers.set(name, module);
  }
  if (layers.size === 0) {
    const known = lastNames(modules.filter(([, module]) => module instanceof Linear && !module.isUnit).map(([name]) => name));
    const list = Array.isArray(config.targetModules) ? config.targetModules.join(', ') : String(config.targetModules);
    const guess = Array.isArray(config.targetModules) ? nearest(config.targetModules[0] ?? '', known)[0] : undefined;
    const wayOut = guess ? `did you mean '${guess}'?` : `there are ${known.join(', ')}`;
    throw new PeftError('ERR_PEFT_CONFIG', `targetModules: no layer matches ${list}; ${wayOut}`);
  }
  return layers;
}

/** Modules that are trained whole, by name. @throws PeftError where a name matches none */
export function modulesToSave(model: Module, names: readonly string[]): Map<string, Module> {
  const modules = [...namedModules(model)];
  const found = new Map<string, Module>();
  for (const name of names) {
    const matching = modules.filter(([path]) => matches([name], path));
    if (matching.length === 0) {
      const known = lastNames(modules.map(([path]) => path)).filter((last) => last !== '' && !/^\d+$/.test(last));
      throw new PeftError(
        'ERR_PEFT_CONFIG',
        `modulesToSave: the model has no module ${name}; there are ${known.join(', ')} (a head that is tied to the embedding is the embedding)`,
      );
    }
    for (const [path, module] of matching) found.set(path, module);
  }
  return found;
}

/** The last parts of names, each once. */
export function lastNames(names: readonly string[]): string[] {
  return [...new Set(names.map((name) => name.slice(name.lastIndexOf('.') + 1)))];
}

/** As PEFT has it: a pattern is one of the whole name, an entry of a list the whole name or its end after a dot. */
function matches(wanted: readonly string[] | RegExp, name: string): boolean {
  if (wanted instanceof RegExp) return new RegExp(`^(?:${wanted.source})$`, wanted.flags).test(name);
  return wanted.some((end) => name === end || name.endsWith(`.${end}`));
}

function isInLayers({ layersToTransform, layersPattern }: FullLoraConfig, name: string): boolean {
  if (!layersToTransform) return true;
  const lists = layersPattern.length > 0 ? layersPattern : ['[^.]*'];
  const layer = lists.map((list) => new RegExp(`.*\\.${list}\\.(\\d+)\\.`).exec(name)?.[1]).find((index) => index !== undefined);
  return layer !== undefined && layersToTransform.includes(Number(layer));
}

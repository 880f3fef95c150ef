import { executionObserver } from '../observe.js';
import { scope } from '../tensor/scope.js';
import { Parameter } from './parameter.js';
import type { WeightSource } from './weight-source.js';

export type Child = Module | Parameter | readonly Module[];

/**
 * A part of a model. Subclasses put parameters and other modules in fields and write `forward`; callers use `call`, which frees
 * at its end what the body made and neither returned nor saved for backward.
 */
// biome-ignore lint/suspicious/noExplicitAny: the default must accept every signature of forward
export abstract class Module<Args extends unknown[] = any[], Result = unknown> {
  /**
   * Whether the parameters below belong together for sharding: they are gathered, used and reduced as one (a transformer block, an
   * embedding, the head).
   */
  readonly isUnit: boolean = false;

  /** What the parameters of a model begin with, where whoever takes it says nothing else; what it lacks is left to their initialisers. Of the outermost module. */
  weights?: WeightSource | undefined;

  /** Whether its weights stay as they are where those of a model are quantised: few numbers that much depends on, such as a router's. */
  readonly keepsPrecision: boolean = false;

  abstract forward(...args: Args): Result;

  call(...args: Args): Result {
    const run = () => scope(() => this.forward(...args));
    const observer = executionObserver();
    return observer ? observer.module(this, run) : run();
  }

  /** Gives back what the module keeps on devices besides its parameters, such as tables of positions; it is made again when needed. */
  dispose(): void {
    for (const [, child] of this.children()) {
      if (child instanceof Module) child.dispose();
      else if (!(child instanceof Parameter)) for (const item of child) item.dispose();
    }
  }

  /** Parameters and modules of this module by name. Override to name them otherwise than by field. */
  *children(): Iterable<readonly [name: string, child: Child]> {
    for (const [name, value] of Object.entries(this)) {
      if (value instanceof Module || value instanceof Parameter) yield [name, value];
      else if (Array.isArray(value) && value.length > 0 && value.every((item) => item instanceof Module)) yield [name, value];
    }
  }
}

/** Every module of the tree with its dotted name, parents before children. */
export function* namedModules(module: Module, prefix = ''): Generator<readonly [string, Module]> {
  yield [prefix, module];
  for (const [name, child] of module.children()) {
    const path = join(prefix, name);
    if (child instanceof Module) yield* namedModules(child, path);
    else if (!(child instanceof Parameter)) for (const [i, item] of child.entries()) yield* namedModules(item, `${path}.${i}`);
  }
}

/** Every parameter with its Hugging Face style name (`transformer.h.0.attn.c_attn.weight`). A tied one comes once, by its first name. */
export function namedParameters(module: Module): Map<string, Parameter> {
  const names = new Map<string, Parameter>();
  const seen = new Set<Parameter>();
  for (const [path, owner] of namedModules(module)) {
    for (const [name, child] of owner.children()) {
      if (!(child instanceof Parameter) || seen.has(child)) continue;
      seen.add(child);
      names.set(join(path, name), child);
    }
  }
  return names;
}

/** A group of parameters that is gathered and reduced together. */
export interface Unit {
  readonly name: string;
  readonly parameters: ReadonlyMap<string, Parameter>;
}

/** Splits a model into units in order of appearance; what lies under no unit module forms one of its own, named 'root'. */
export function unitsOf(model: Module): Unit[] {
  const units: { name: string; parameters: Map<string, Parameter> }[] = [];
  const seen = new Set<Parameter>();
  const root = { name: 'root', parameters: new Map<string, Parameter>() };
  const visit = (module: Module, path: string, unit: typeof root) => {
    let mine = unit;
    if (module.isUnit && unit === root) {
      mine = { name: path || 'model', parameters: new Map() };
      units.push(mine);
    }
    for (const [name, child] of module.children()) {
      const childPath = join(path, name);
      if (child instanceof Parameter) {
        if (seen.has(child)) continue;
        seen.add(child);
        if (mine === root && !units.includes(root)) units.push(root);
        mine.parameters.set(childPath, child);
      } else if (child instanceof Module) visit(child, childPath, mine);
      else for (const [i, item] of child.entries()) visit(item, `${childPath}.${i}`, mine);
    }
  };
  visit(model, '', root);
  return units.filter(({ parameters }) => parameters.size > 0);
}

function join(prefix: string, name: string): string {
  return prefix === '' ? name : `${prefix}.${name}`;
}

import {
  type Device,
  type ExecutionObserver,
  full,
  type Module,
  namedModules,
  type Tensor,
  type View,
  withExecutionObserver,
} from '@deepspeed-ts/core';
import { opFlops } from './op-flops.js';

/** Passes that a module takes part in; `recompute`: its forward pass again, within backward. */
export const PASSES = ['forward', 'backward', 'recompute'] as const;
export type Pass = (typeof PASSES)[number];

/** What a module costs by itself, without the modules in it. */
export interface ModuleCost {
  flops: number;
  milliseconds: number;
}

export interface ModuleNode {
  readonly path: string;
  readonly module: Module;
  readonly children: ModuleNode[];
  readonly cost: Readonly<Record<Pass, ModuleCost>>;
}

/** A stretch of time, in milliseconds of `performance.now()`. */
export interface Span {
  readonly name: string;
  readonly pass: Pass;
  readonly begun: number;
  readonly ended: number;
}

export interface ModuleClockOptions {
  /** Modules that are told apart; others count towards the one they are in. */
  readonly wants?: (module: Module) => boolean;
  readonly span?: (span: Span) => void;
}

/**
 * Times modules by waiting for the device where one begins or ends, and counts the FLOPs of what they launch. In backward an operation
 * counts for the module whose forward pass recorded it. Waiting takes away overlap, so only single steps are run under it.
 */
export class ModuleClock implements ExecutionObserver {
  readonly root: ModuleNode;
  readonly #nodes = new Map<Module, ModuleNode>();
  readonly #recorded = new WeakMap<object, ModuleNode>();
  readonly #span: (span: Span) => void;
  readonly #probe: Tensor;
  #node: ModuleNode;
  #pass: Pass = 'forward';
  #since = 0;
  #inBackward = false;

  constructor(model: Module, device: Device, { wants = () => true, span = () => {} }: ModuleClockOptions = {}) {
    this.root = nodeOf('', model);
    this.#nodes.set(model, this.root);
    const byPath = new Map([['', this.root]]);
    for (const [path, module] of namedModules(model)) {
      if (this.#nodes.has(module) || !wants(module)) continue;
      const node = nodeOf(path, module);
      this.#nodes.set(module, node);
      byPath.set(path, node);
      let above = path;
      do above = above.slice(0, Math.max(0, above.lastIndexOf('.')));
      while (!byPath.has(above));
      byPath.get(above)!.children.push(node);
    }
    this.#node = this.root;
    this.#span = span;
    this.#probe = full(device, [1], 'f32', 0).keep();
  }

  /** Runs a forward or a backward pass under the clock. */
  run<T>(pass: 'forward' | 'backward', body: () => T): T {
    this.#inBackward = pass === 'backward';
    this.wait();
    this.#node = this.root;
    this.#pass = pass;
    this.#since = performance.now();
    try {
      return withExecutionObserver(this, body);
    } finally {
      this.#turn(this.root, pass);
      this.wait();
      this.#account();
      this.#inBackward = false;
    }
  }

  /** Until the device has come to here. */
  wait(): void {
    this.#probe.readSync();
  }

  dispose(): void {
    this.#probe.dispose();
  }

  module<T>(module: Module, run: () => T): T {
    const node = this.#nodes.get(module);
    if (!node || node === this.#node) return run();
    const [outer, pass] = [this.#node, this.#pass];
    this.#turn(node, this.#inBackward ? 'recompute' : 'forward');
    const begun = this.#since;
    try {
      return run();
    } finally {
      this.#turn(outer, pass);
      if (!this.#inBackward) this.#span({ name: node.path, pass: 'forward', begun, ended: this.#since });
    }
  }

  recorded(operation: object): void {
    this.#recorded.set(operation, this.#node);
  }

  backward(operation: object, run: () => void): void {
    this.#turn(this.#recorded.get(operation) ?? this.root, 'backward');
    run();
  }

  launched(op: string, inputs: readonly View[], outputs: readonly View[], attrs: Readonly<Record<string, number>>): void {
    const { own, backward } = opFlops(op, inputs, outputs, attrs);
    this.#node.cost[this.#pass].flops += own;
    this.#node.cost.backward.flops += backward;
  }

  #turn(node: ModuleNode, pass: Pass): void {
    if (node === this.#node && pass === this.#pass) return;
    this.wait();
    this.#account();
    this.#node = node;
    this.#pass = pass;
  }

  /** The time since the last turn goes to who had it. */
  #account(): void {
    const ended = performance.now();
    const begun = this.#since;
    this.#since = ended;
    this.#node.cost[this.#pass].milliseconds += ended - begun;
    // In the forward pass modules nest; in backward stretches follow each other.
    if (this.#inBackward && this.#node !== this.root) this.#span({ name: this.#node.path, pass: this.#pass, begun, ended });
  }
}

function nodeOf(path: string, module: Module): ModuleNode {
  const cost = () => ({ flops: 0, milliseconds: 0 });
  return { path, module, children: [], cost: { forward: cost(), backward: cost(), recompute: cost() } };
}

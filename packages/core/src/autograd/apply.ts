import { DeepSpeedError } from '../errors.js';
import { Parameter } from '../nn/parameter.js';
import type { Attrs, Op } from '../ops/define-op.js';
import { launch } from '../ops/launch.js';
import { empty } from '../tensor/create.js';
import type { Device } from '../tensor/device.js';
import { Tensor } from '../tensor/tensor.js';
import { isRecording } from './mode.js';
import type { Edge } from './node.js';
import { OpNode } from './op-node.js';

/** An op's argument: a value, or a weight that its store fetches. */
export type Argument = Tensor | Parameter;

let uses: Set<Parameter> | null = null;

/** Runs `body` and tells which parameters ops used in it. */
export function withParameterUses<T>(body: () => T): { result: T; parameters: Set<Parameter> } {
  const outer = uses;
  const mine = new Set<Parameter>();
  uses = mine;
  try {
    return { result: body(), parameters: mine };
  } finally {
    uses = outer;
    if (outer) for (const parameter of mine) outer.add(parameter);
  }
}

/** Runs an op on new outputs and records it where a gradient may be wanted. */
export function apply<A extends Attrs>(op: Op<A>, args: readonly Argument[], attrs: A): Tensor[] {
  const inputs = args.map((arg) => (arg instanceof Parameter ? arg.use() : arg));
  try {
    const specs = op.infer(inputs, attrs);
    const device = commonDevice(op.name, inputs);
    const outputs = specs.map(({ shape, dtype }, i) => (i === 0 && takenOver(op, args)) || empty(device, shape, dtype));
    launch(op, inputs, outputs, attrs);
    record(op, args, attrs, outputs);
    return outputs;
  } finally {
    for (const arg of args) if (arg instanceof Parameter) arg.done();
  }
}

function record<A extends Attrs>(op: Op<A>, args: readonly Argument[], attrs: A, outputs: readonly Tensor[]): void {
  if (uses) for (const arg of args) if (arg instanceof Parameter && arg.requiresGrad) uses.add(arg);
  if (!isRecording() || !op.vjp) return;
  let wanted = false;
  const edges = args.map((arg): Edge => {
    const edge = arg instanceof Parameter ? (arg.requiresGrad ? arg : null) : arg.node ? { node: arg.node, output: arg.nodeOutput } : null;
    wanted ||= edge !== null;
    return edge;
  });
  if (!wanted) return;
  const node = new OpNode(op, attrs, args, outputs, edges);
  for (const [i, output] of outputs.entries()) {
    output.node = node.retain();
    output.nodeOutput = i;
  }
}

/** The same memory as a new tensor, where the op may write over it and this argument is its only owner. */
function takenOver<A extends Attrs>({ takesOver }: Op<A>, args: readonly Argument[]): Tensor | undefined {
  const input = takesOver === undefined ? undefined : args[takesOver];
  if (!(input instanceof Tensor) || input.buffer.owners > 1) return undefined;
  return new Tensor(input.buffer.retain(), input.shape, input.dtype, input.byteOffset);
}

function commonDevice(op: string, inputs: readonly Tensor[]): Device {
  const device = inputs[0]!.device;
  for (const input of inputs) {
    if (input.device !== device) {
      throw new DeepSpeedError(
        'ERR_DEVICE',
        `[${op}] all inputs must be on one device, got ${device.name} and ${input.device.name} (or two devices of that name)`,
      );
    }
  }
  return device;
}

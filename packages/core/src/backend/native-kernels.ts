import { type DType, dtypes, isFloat } from '../dtype.js';
import { DeepSpeedError } from '../errors.js';
import type { View } from './backend.js';

/** What an addon offers of its kernels. Buffers are integers there, and a launch is a row of numbers: both cross N-API cheaply. */
export interface NativeLaunches {
  /** Where `launch` reads: [op, nIn, nOut, nAttrs, then per tensor handle, byteOffset, dtype, rank, ...dims, then attrs]. */
  readonly command: Float64Array;
  /** -1: no such kernel. */
  opId(name: string): number;
  /** The float dtypes that the kernel takes: bit `dtypes[d].code`. */
  opDtypes(id: number): number;
  launch(words: number): void;
}

interface Kernel {
  readonly id: number;
  readonly floats: number;
}

/** The kernels of an addon by name: `supports` and `launch` of the backends that have one. */
export class NativeKernels {
  readonly #kernels = new Map<string, Kernel>();

  constructor(
    readonly device: string,
    readonly native: NativeLaunches,
  ) {}

  supports(op: string, wanted: readonly DType[]): boolean {
    const { id, floats } = this.#kernel(op);
    return id >= 0 && wanted.every((dtype) => !isFloat(dtype) || (floats & (1 << dtypes[dtype].code)) !== 0);
  }

  /** @throws DeepSpeedError when there is no such kernel; what the addon throws when it refuses the call */
  launch(op: string, inputs: readonly View[], outputs: readonly View[], attrs: readonly number[]): void {
    const { id } = this.#kernel(op);
    if (id < 0) throw new DeepSpeedError('ERR_UNKNOWN_OP', `[${this.device}] there is no kernel '${op}'; ask supports() first`);
    const { command } = this.native;
    command[0] = id;
    command[1] = inputs.length;
    command[2] = outputs.length;
    command[3] = attrs.length;
    let at = 4;
    for (let i = 0; i < inputs.length; i++) at = encodeView(command, at, inputs[i]!);
    for (let i = 0; i < outputs.length; i++) at = encodeView(command, at, outputs[i]!);
    for (let i = 0; i < attrs.length; i++) command[at++] = attrs[i]!;
    this.native.launch(at);
  }

  #kernel(op: string): Kernel {
    let kernel = this.#kernels.get(op);
    if (!kernel) {
      const id = this.native.opId(op);
      kernel = { id, floats: this.native.opDtypes(id) };
      this.#kernels.set(op, kernel);
    }
    return kernel;
  }
}

function encodeView(command: Float64Array, at: number, view: View): number {
  const { shape } = view;
  command[at] = view.handle;
  command[at + 1] = view.byteOffset;
  command[at + 2] = dtypes[view.dtype].code;
  command[at + 3] = shape.length;
  at += 4;
  for (let i = 0; i < shape.length; i++) command[at++] = shape[i]!;
  return at;
}

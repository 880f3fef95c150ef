import type { DType } from '../dtype.js';
import { DeepSpeedError } from '../errors.js';
import { launch } from '../ops/launch.js';
import { dequantize, quantize } from '../ops/quantize.js';
import { codesOf, QUANTIZED_BLOCK, QUANTIZED_FORMATS, type QuantizedFormat, scalesOf } from '../ops/quantized-format.js';
import { type CreateOptions, empty } from '../tensor/create.js';
import type { Device } from '../tensor/device.js';
import { scope, unscoped } from '../tensor/scope.js';
import type { Shape, Tensor } from '../tensor/tensor.js';
import type { Parameter } from './parameter.js';

/** Elements that pass through memory at a time on their way into codes; whole blocks. */
const STAGED = 2 ** 22;

/** Elements kept as codes with scales; see `quantize`. Whoever makes one disposes it. */
export class Quantized {
  private constructor(
    readonly format: QuantizedFormat,
    readonly numel: number,
    readonly codes: Tensor,
    readonly scales: Tensor,
  ) {}

  /** Uninitialised. */
  static empty(device: Device, format: QuantizedFormat, numel: number, options: CreateOptions = {}): Quantized {
    return unscoped(() => {
      const codes = empty(device, [codesOf(format, numel)], format === 'int8' ? 'i8' : 'u8', options);
      try {
        return new Quantized(format, numel, codes, empty(device, [scalesOf(numel)], 'f32', options));
      } catch (error) {
        codes.dispose();
        throw error;
      }
    });
  }

  /** Elements `start` to `start + count`, sharing storage; `start` begins a block. */
  narrow(start: number, count: number): Quantized {
    const { format } = this;
    if (start % QUANTIZED_BLOCK !== 0) throw new Error(`elements from ${start} on do not begin a block of ${QUANTIZED_BLOCK}`);
    return unscoped(() => {
      const codes = this.codes.narrow(codesOf(format, start), codesOf(format, count));
      return new Quantized(format, count, codes, this.scales.narrow(start / QUANTIZED_BLOCK, scalesOf(count)));
    });
  }

  /** Replaces the elements by the nearest that the format has to those of a float tensor. */
  set(values: Tensor): void {
    launch(quantize, [values], [this.codes, this.scales], this.#attrs);
  }

  /** Writes the elements into a float tensor. */
  get(values: Tensor): void {
    launch(dequantize, [this.codes, this.scales], [values], this.#attrs);
  }

  /** As a tensor of the caller's. */
  values(shape: Shape, dtype: DType): Tensor {
    const values = unscoped(() => empty(this.codes.device, shape, dtype, { kind: 'parameters' }));
    this.get(values);
    return values;
  }

  /** Sets the elements a few at a time: `write` gets an f32 tensor to fill, and where its elements begin. So no more than that is ever held. */
  setBy(write: (values: Tensor, start: number) => void): void {
    for (let start = 0; start < this.numel; start += STAGED) {
      const count = Math.min(STAGED, this.numel - start);
      const part = this.narrow(start, count);
      try {
        scope(() => {
          const values = empty(part.codes.device, [count], 'f32', { kind: 'data' });
          write(values, start);
          part.set(values);
        });
      } finally {
        part.dispose();
      }
    }
  }

  dispose(): void {
    this.codes.dispose();
    this.scales.dispose();
  }

  get #attrs() {
    return { format: QUANTIZED_FORMATS.indexOf(this.format) };
  }
}

/** Values of parameters that are there while somebody uses them, made of codes. */
export class WorkingValues {
  readonly #values = new Map<Parameter, { readonly tensor: Tensor; users: number }>();

  /** How many borrowers there are. */
  get users(): number {
    let users = 0;
    for (const value of this.#values.values()) users += value.users;
    return users;
  }

  use(parameter: Parameter, make: () => Tensor): Tensor {
    let value = this.#values.get(parameter);
    if (!value) {
      value = { tensor: make(), users: 0 };
      this.#values.set(parameter, value);
    }
    value.users++;
    return value.tensor;
  }

  done(parameter: Parameter): void {
    const value = this.#values.get(parameter);
    if (!value || --value.users > 0) return;
    this.#values.delete(parameter);
    value.tensor.dispose();
  }

  /** Of a pass that has failed halfway. */
  dispose(): void {
    for (const { tensor } of this.#values.values()) tensor.dispose();
    this.#values.clear();
  }
}

/** The format that a parameter is to be kept in. @throws DeepSpeedError where it is to be trained too */
export function storageOf(name: string, { storage, requiresGrad }: Parameter): QuantizedFormat | undefined {
  if (storage && requiresGrad) {
    const text = `${name} is to be kept as ${storage} codes and to be trained, which needs the weight itself`;
    throw new DeepSpeedError('ERR_QUANTIZED', `${text}; freeze it (requiresGrad = false), or leave its storage undefined`);
  }
  return storage;
}

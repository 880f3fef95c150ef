import { describePickled, PickleObject, type PickleValue, TorchTensor } from '@deepspeed-ts/core';
import { DeepSpeedCheckpointError } from './error.js';

export type Dictionary = Map<PickleValue, PickleValue>;

/** Reads fields of what a file holds, and says of one that is not as expected which it is and in which file. */
export class Fields {
  constructor(
    readonly path: string,
    readonly where: string,
    readonly dictionary: Dictionary,
  ) {}

  static of(path: string, value: PickleValue, where = ''): Fields {
    if (value instanceof Map) return new Fields(path, where, value);
    throw new DeepSpeedCheckpointError(path, `expected ${where || 'the file'} to hold a dictionary, got ${describePickled(value)}`);
  }

  has(key: string): boolean {
    return this.dictionary.get(key) != null;
  }

  get(key: string): PickleValue | undefined {
    return this.dictionary.get(key);
  }

  fields(key: string): Fields {
    return Fields.of(this.path, this.get(key) ?? null, this.#name(key));
  }

  optionalFields(key: string): Fields | undefined {
    return this.has(key) ? this.fields(key) : undefined;
  }

  list(key: string): readonly PickleValue[] {
    const value = this.get(key);
    return Array.isArray(value) ? value : this.#wrong(key, 'a list', value);
  }

  integer(key: string, fallback?: number): number {
    const value = this.get(key) ?? fallback;
    const number = numberOf(value);
    return Number.isSafeInteger(number) ? number! : this.#wrong(key, 'an integer', value);
  }

  tensors(key: string): TorchTensor[] {
    return this.list(key).map((value) => (value instanceof TorchTensor ? value : this.#wrong(key, 'a list of tensors', value)));
  }

  /** Of a dictionary of names. */
  *named(): Generator<readonly [string, PickleValue]> {
    for (const [key, value] of this.dictionary) if (typeof key === 'string') yield [key, value];
  }

  wrong(detail: string): DeepSpeedCheckpointError {
    return new DeepSpeedCheckpointError(this.path, this.where ? `${this.where}: ${detail}` : detail);
  }

  #name(key: string): string {
    return this.where ? `${this.where}.${key}` : key;
  }

  #wrong(key: string, expected: string, got: PickleValue | undefined): never {
    throw new DeepSpeedCheckpointError(this.path, `${this.#name(key)}: expected ${expected}, got ${describePickled(got)}`);
  }
}

/** A number, also as a tensor of one element or as the value of an enumeration. */
export function numberOf(value: PickleValue | undefined): number | undefined {
  if (typeof value === 'number') return value;
  if (value instanceof TorchTensor && value.numel === 1) return value.item();
  if (value instanceof PickleObject && value.args.length === 1) return numberOf(value.args[0]);
  return undefined;
}

export function numelOfShape(shape: readonly number[]): number {
  return shape.reduce((n, size) => n * size, 1);
}

/** Shapes by name. */
export function shapesOf(fields: Fields): Map<string, readonly number[]> {
  const shapes = new Map<string, readonly number[]>();
  for (const [name, shape] of fields.named()) {
    if (!Array.isArray(shape) || !shape.every((size) => Number.isSafeInteger(size) && size >= 0))
      throw fields.wrong(`expected the shape of ${name}, got ${describePickled(shape)}`);
    shapes.set(name, shape as readonly number[]);
  }
  return shapes;
}

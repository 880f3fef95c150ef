import { describePickled, NumpyArray, PickleObject, type PickleValue, TorchTensor } from '@deepspeed-ts/core';

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

/** Beyond this it is no note that somebody left, and a few bytes of pickle can stand for more values than there are atoms. */
const MAX_VALUES = 100_000;
const MAX_DEPTH = 100;

/** Classes whose attributes say all there is to say. */
const RECORDS = new Set(['argparse.Namespace', 'types.SimpleNamespace']);

/** What JSON can hold of a pickled value; what it can't is left out and reported with its path. */
export class JsonConversion {
  readonly leftOut: string[] = [];
  #values = 0;

  convert(value: PickleValue, path: string): Json | undefined {
    return this.#convert(value, path, 0);
  }

  #convert(value: PickleValue, path: string, depth: number): Json | undefined {
    if (++this.#values > MAX_VALUES || depth > MAX_DEPTH) return this.#leave(path, 'too large');
    if (value === null || typeof value === 'boolean' || typeof value === 'string') return value;
    if (typeof value === 'number') return Number.isFinite(value) ? value : this.#leave(path, String(value));
    if (value instanceof Map) return this.#record(value, path, depth);
    if (Array.isArray(value) || value instanceof Set) return this.#list([...(value as Iterable<PickleValue>)], path, depth);
    if (value instanceof NumpyArray || (value instanceof TorchTensor && !value.dtype.startsWith('c')))
      return this.#numbers(value, path, depth);
    if (value instanceof PickleObject && RECORDS.has(String(value.type))) return this.#record(value.attributes, path, depth);
    return this.#leave(path, describePickled(value));
  }

  #record(map: ReadonlyMap<PickleValue, PickleValue>, path: string, depth: number): Json {
    const entries: [string, Json][] = [];
    for (const [key, item] of map) {
      if (typeof key !== 'string' && typeof key !== 'number') {
        this.#leave(path, `an entry of ${describePickled(key)}`);
        continue;
      }
      const converted = this.#convert(item, `${path}.${key}`, depth + 1);
      if (converted !== undefined) entries.push([String(key), converted]);
    }
    return Object.fromEntries(entries);
  }

  #list(items: readonly PickleValue[], path: string, depth: number): Json {
    // What is left out keeps its place, so that others keep theirs.
    return items.map((item, i) => this.#convert(item, `${path}[${i}]`, depth + 1) ?? null);
  }

  #numbers(value: NumpyArray | TorchTensor, path: string, depth: number): Json | undefined {
    const count = value.shape.reduce((n, size) => n * size, 1);
    // States of random number generators and the like: for programs, not for notes.
    if (count > 1024 || value.shape.length > 1) return this.#leave(path, describePickled(value));
    const numbers = value instanceof NumpyArray ? value.values() : [...value.values().data];
    if (!numbers) return this.#leave(path, describePickled(value));
    return value.shape.length === 0 ? this.#convert(numbers[0]!, path, depth) : this.#list(numbers, path, depth);
  }

  #leave(path: string, what: string): undefined {
    if (this.leftOut.length < 100) this.leftOut.push(`${path} (${what})`);
    return undefined;
  }
}

import type { HostArray } from '@deepspeed-ts/core';
import { DataError } from './data-error.js';

/** One field of a sample: an integer, a row of numbers, or an array of any shape. A plain list must hold integers. */
export type Field = number | readonly number[] | Int32Array | Float32Array | HostArray;

/** What {@link stack} makes of samples: the same fields, each with a first axis for the samples. */
export type Stacked<Sample> = Sample extends Field ? HostArray : { readonly [K in keyof Sample]: HostArray };

/**
 * Stacks samples along a new first axis: N fields of shape [T] become one of shape [N, T]. A sample is one field or a record of fields.
 *
 * @throws DataError when samples have different fields, shapes or kinds of numbers.
 */
export function stack<Sample>(samples: readonly Sample[]): Stacked<Sample> {
  const first = samples[0];
  if (isField(first)) return stackFields(samples as readonly Field[], 'samples') as Stacked<Sample>;
  if (typeof first !== 'object' || first === null)
    throw new DataError(`expected samples to be arrays or records of arrays, got ${typeof first}`);
  const names = Object.keys(first);
  for (const sample of samples) {
    const others = Object.keys(sample as object);
    if (others.length !== names.length || names.some((name) => !Object.hasOwn(sample as object, name))) {
      throw new DataError(`samples of one batch have different fields: [${names.join(', ')}] and [${others.join(', ')}]`);
    }
  }
  const fields = names.map((name) => [
    name,
    stackFields(
      samples.map((sample) => (sample as Record<string, Field>)[name]!),
      `field "${name}"`,
    ),
  ]);
  return Object.fromEntries(fields) as Stacked<Sample>;
}

function stackFields(fields: readonly Field[], what: string): HostArray {
  const rows = fields.map((field) => toArray(field, what));
  const { data: first, shape } = rows[0]!;
  const out = first instanceof Int32Array ? new Int32Array(rows.length * first.length) : new Float32Array(rows.length * first.length);
  rows.forEach((row, i) => {
    if (row.shape.join() !== shape.join() || row.data.constructor !== first.constructor) {
      throw new DataError(
        `${what} differ within a batch: sample 0 is ${show({ data: first, shape })}, sample ${i} is ${show(row)}; pad or cut them to one shape`,
      );
    }
    out.set(row.data, i * first.length);
  });
  return { data: out, shape: [rows.length, ...shape] };
}

function toArray(field: Field, what: string): HostArray {
  if (field instanceof Int32Array || field instanceof Float32Array) return { data: field, shape: [field.length] };
  if (typeof field === 'number') return { data: integers([field], what), shape: [] };
  if (Array.isArray(field)) return { data: integers(field, what), shape: [field.length] };
  if (!isField(field))
    throw new DataError(`${what}: expected a number, a list of integers, an Int32Array or a Float32Array, got ${typeof field}`);
  return field as HostArray;
}

function integers(values: readonly number[], what: string): Int32Array {
  const wrong = values.find((value) => value !== (value | 0));
  if (wrong !== undefined) throw new DataError(`${what}: ${wrong} is not a 32-bit integer; give real numbers as a Float32Array`);
  return Int32Array.from(values);
}

function isField(value: unknown): value is Field {
  if (typeof value === 'number' || Array.isArray(value) || value instanceof Int32Array || value instanceof Float32Array) return true;
  return typeof value === 'object' && value !== null && 'data' in value && 'shape' in value;
}

function show({ data, shape }: HostArray): string {
  return `${data.constructor.name} [${shape.join(', ')}]`;
}

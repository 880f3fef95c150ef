/**
 * The subset of JSON Schema (draft 7) that config sections are written in, and the TypeScript type such a schema stands for.
 * One schema is validation, defaults, type, reference page and editor help at once; nothing else repeats what it says.
 */

export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };

export type SchemaType = 'null' | 'boolean' | 'number' | 'integer' | 'string' | 'array' | 'object';

export interface JsonSchema {
  readonly type?: SchemaType | readonly SchemaType[];
  readonly description?: string;
  readonly default?: Json;
  readonly const?: Json;
  readonly enum?: readonly Json[];
  readonly minimum?: number;
  readonly maximum?: number;
  readonly exclusiveMinimum?: number;
  readonly exclusiveMaximum?: number;
  /** A list of schemas is a tuple of exactly that length. */
  readonly items?: JsonSchema | readonly JsonSchema[];
  readonly properties?: Readonly<Record<string, JsonSchema>>;
  readonly required?: readonly string[];
  /** Alternatives told apart by the constant in the property that `discriminator` names, which each of them requires. */
  readonly oneOf?: readonly JsonSchema[];
  readonly discriminator?: { readonly propertyName: string };
  /** Ours: the way out, added to every message about this value. */
  readonly hint?: string;
  /** Ours: a string enum, or the property that tells alternatives apart, whose spelling ignores case; the value is replaced by ours. */
  readonly ignoreCase?: true;
  /** Ours: values (of an enum, or names of alternatives) that DeepSpeed knows and we refuse, with the reason. */
  readonly refused?: Readonly<Record<string, string>>;
  /** Ours: the reason why a key that DeepSpeed knows can't be switched on here. */
  readonly unsupported?: string;
}

export function isTuple(items: JsonSchema['items']): items is readonly JsonSchema[] {
  return Array.isArray(items);
}

type Flatten<T> = { readonly [K in keyof T]: T[K] };

type FromType<T, S> = T extends 'string'
  ? string
  : T extends 'number' | 'integer'
    ? number
    : T extends 'boolean'
      ? boolean
      : T extends 'null'
        ? null
        : T extends 'array'
          ? FromItems<S>
          : T extends 'object'
            ? S extends { readonly properties: infer P }
              ? FromProperties<P, S extends { readonly required: readonly (infer R)[] } ? R : never>
              : Readonly<Record<string, unknown>>
            : unknown;

type FromItems<S> = S extends { readonly items: infer I }
  ? I extends readonly unknown[]
    ? { readonly [K in keyof I]: FromSchema<I[K]> }
    : readonly FromSchema<I>[]
  : readonly unknown[];

/** Properties with a default, and required ones, are always there after validation; the others may be missing. */
type AlwaysThere<P, R> = { [K in keyof P]: K extends R ? K : P[K] extends { readonly default: unknown } ? K : never }[keyof P];

export type FromProperties<P, R = never> = Flatten<
  { readonly [K in AlwaysThere<P, R>]: FromSchema<P[K]> } & {
    readonly [K in Exclude<keyof P, AlwaysThere<P, R>>]?: FromSchema<P[K]>;
  }
>;

/** The type of a value that has passed the schema `S`, with defaults filled in. */
export type FromSchema<S> = S extends { readonly const: infer C }
  ? C
  : S extends { readonly enum: readonly (infer E)[] }
    ? E
    : S extends { readonly oneOf: readonly (infer B)[]; readonly discriminator: { readonly propertyName: infer Tag } }
      ? B extends { readonly properties: infer P }
        ? FromProperties<P, Tag>
        : never
      : S extends { readonly type: infer T }
        ? T extends readonly (infer U)[]
          ? U extends unknown
            ? FromType<U, S>
            : never
          : FromType<T, S>
        : unknown;

import { isTuple, type JsonSchema, type SchemaType } from './schema.js';

const ARTICLE: Record<SchemaType, string> = {
  null: 'null',
  boolean: 'true or false',
  number: 'a number',
  integer: 'an integer',
  string: 'a string',
  array: 'a list',
  object: 'an object',
};

/** What a schema accepts, in words: `an integer >= 1 or null`. */
export function describe(schema: JsonSchema): string {
  if (schema.const !== undefined) return show(schema.const);
  if (schema.enum) return alternatives(schema.enum.map(show));
  if (schema.oneOf) return describe({ enum: tags(schema) });
  if (schema.type === undefined) return 'any value';
  const types: readonly SchemaType[] = Array.isArray(schema.type) ? schema.type : [schema.type as SchemaType];
  return alternatives(types.map((type) => (type === 'array' ? list(schema) : ARTICLE[type] + (type === 'null' ? '' : range(schema)))));
}

/** The values of the property that tells the alternatives of a `oneOf` apart. */
export function tags(schema: JsonSchema): string[] {
  const tag = schema.discriminator!.propertyName;
  return schema.oneOf!.map((branch) => String(branch.properties?.[tag]?.const));
}

/** A value as the user wrote it, cut where it gets long. */
export function show(value: unknown): string {
  const text = typeof value === 'number' || value === undefined ? String(value) : (JSON.stringify(value) ?? String(value));
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}

export function alternatives(words: readonly string[]): string {
  return words.length < 2 ? words.join('') : `${words.slice(0, -1).join(', ')} or ${words.at(-1)}`;
}

function list({ items }: JsonSchema): string {
  if (items === undefined) return 'a list';
  if (!isTuple(items)) return `a list whose entries are each ${describe(items)}`;
  const entries = items.map(describe);
  const alike = entries.every((entry) => entry === entries[0]);
  return `a list of ${items.length}${alike ? `, each ${entries[0]}` : ` (${entries.join(', ')})`}`;
}

function range({ minimum, maximum, exclusiveMinimum, exclusiveMaximum }: JsonSchema): string {
  const bounds = [
    minimum === undefined ? '' : `>= ${minimum}`,
    exclusiveMinimum === undefined ? '' : `> ${exclusiveMinimum}`,
    maximum === undefined ? '' : `<= ${maximum}`,
    exclusiveMaximum === undefined ? '' : `< ${exclusiveMaximum}`,
  ].filter((bound) => bound !== '');
  return bounds.length === 0 ? '' : ` ${bounds.join(' and ')}`;
}

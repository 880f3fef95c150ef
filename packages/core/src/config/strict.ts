import { isTuple, type Json, type JsonSchema } from './schema.js';
import { type ConfigSection, whyUnsupported } from './section.js';

/** A key that we don't support may still be there when it says so itself. */
export const SWITCHED_OFF: readonly Json[] = [false, null, { enabled: false }, { device: 'none' }];

type Mutable = { -readonly [K in keyof JsonSchema]: JsonSchema[K] } & {
  additionalProperties?: false;
  additionalItems?: false;
  minItems?: number;
  maxItems?: number;
};

/** The JSON Schema of a whole config: all sections side by side, unknown keys refused at every depth. */
export function strictSchema(sections: readonly ConfigSection[]): JsonSchema {
  const properties: Record<string, JsonSchema> = {
    $schema: { type: 'string', description: 'Address of this schema, for editors; has no effect.' },
  };
  for (const section of sections) {
    for (const [key, schema] of Object.entries(section.properties)) {
      if (Object.hasOwn(properties, key)) throw new Error(`two config sections own the key "${key}"; the second is "${section.name}"`);
      properties[key] = schema;
    }
  }
  let root: JsonSchema = { type: 'object', properties };
  for (const section of sections) {
    for (const [path, entry] of Object.entries(section.unsupported)) root = refuse(root, path.split('.'), whyUnsupported(entry));
  }
  return tighten(root);
}

/** A copy of `schema` in which the key at `path`, in each alternative, may only be switched off. */
function refuse(schema: JsonSchema, path: readonly string[], reason: string): JsonSchema {
  if (schema.oneOf) return { ...schema, oneOf: schema.oneOf.map((branch) => refuse(branch, path, reason)) };
  const [key, ...rest] = path as [string, ...string[]];
  const inner = schema.properties?.[key];
  if ((inner === undefined) !== (rest.length === 0))
    throw new Error(`unsupported config key "${key}": its parent must be an object schema that lacks it`);
  const next: JsonSchema = inner ? refuse(inner, rest, reason) : { enum: SWITCHED_OFF, unsupported: reason };
  return { ...schema, properties: { ...schema.properties, [key]: next } };
}

/** Says what sections leave unsaid: objects know all their keys, tuples have exactly their length,
 * alternatives require the property that tells them apart. */
function tighten(schema: JsonSchema): JsonSchema {
  const out: Mutable = { ...schema };
  if (schema.properties) {
    out.properties = Object.fromEntries(Object.entries(schema.properties).map(([key, value]) => [key, tighten(value)]));
    out.additionalProperties = false;
  }
  if (schema.oneOf) out.oneOf = schema.oneOf.map((branch) => ({ ...tighten(branch), required: [schema.discriminator!.propertyName] }));
  if (isTuple(schema.items)) {
    out.items = schema.items.map(tighten);
    out.minItems = schema.items.length;
    out.maxItems = schema.items.length;
    out.additionalItems = false;
  } else if (schema.items) {
    out.items = tighten(schema.items);
  }
  return out;
}

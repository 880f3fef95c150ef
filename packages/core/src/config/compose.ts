import { Ajv, type FuncKeywordDefinition, type SchemaValidateFunction } from 'ajv';
import { ConfigError } from '../errors.js';
import { show, tags } from './describe.js';
import { type ConfigPath, dotted, explain, type Problem, unknownAmong } from './problems.js';
import type { JsonSchema } from './schema.js';
import type { ConfigContext, ConfigOf, ConfigSection } from './section.js';
import { strictSchema } from './strict.js';

export interface ComposeOptions extends Partial<ConfigContext> {
  /**
   * Called for each value `"auto"`. What it returns takes the value's place; `undefined` leaves the problem standing.
   * A caller that knows the model and its own arguments (a trainer) fills such values from them.
   */
  readonly resolveAuto?: (path: string) => unknown;
  /** Where a path stands in the source text, for messages: `ds_config.json:3:5`. */
  readonly locate?: (path: ConfigPath) => string | undefined;
}

/**
 * Checks `raw` against the sections together and fills in defaults.
 *
 * @param raw - A plain JSON-like object. It is not changed; keys set to `undefined` count as absent.
 * @returns The typed config, frozen, with every default filled in and without keys that only say "off".
 * @throws ConfigError listing every problem: unknown keys with the nearest valid one, wrong values with what was expected, keys of
 * DeepSpeed that are not supported with the reason, unresolved `"auto"`, and broken rules between fields.
 */
export function composeConfig<const Sections extends readonly ConfigSection[]>(
  sections: Sections,
  raw: unknown,
  options: ComposeOptions = {},
): ConfigOf<Sections> {
  const { config, problems } = checkConfig(sections, raw, options);
  if (problems.length > 0) throw new ConfigError(problems.map((problem) => format(problem, options)));
  return freeze(config) as ConfigOf<Sections>;
}

/** What is wrong with a config, in the order in which it is written, and what it becomes. */
export function checkConfig(
  sections: readonly ConfigSection[],
  raw: unknown,
  options: ComposeOptions,
): { config: Record<string, unknown>; problems: Problem[] } {
  const problems: Problem[] = [];
  if (!isPlainObject(raw)) throw new ConfigError([`a config must be an object, got ${show(raw)}`]);

  const { schema, validate } = validatorOf(sections);
  const config = copy(raw, [], problems, options, schema) as Record<string, unknown>;
  delete config.$schema;
  for (const section of sections) {
    for (const [path, entry] of Object.entries(section.unsupported)) {
      if (typeof entry !== 'string') problems.push(...offWithout(config, path.split('.'), entry.keys ?? []));
    }
  }
  const unset = new Set(problems.map(({ path }) => dotted(path)));
  if (!validate(config)) {
    // A required value that was "auto" has been reported already, not as missing.
    problems.push(...explain(validate.errors ?? [], schema).filter(({ path }) => !unset.has(dotted(path))));
  }
  for (const section of sections) {
    for (const path of Object.keys(section.unsupported)) remove(config, path.split('.'));
  }
  const context = { worldSize: options.worldSize ?? 1 };
  for (const section of sections) {
    // Rules between fields only make sense when each field does; a problem elsewhere doesn't hide them.
    if (problems.some(({ path }) => Object.hasOwn(section.properties, path[0]!))) continue;
    section.check?.(config, (path, message) => problems.push({ path: path.split('.'), message }), context);
  }
  return { config, problems: inOrderOf(raw, problems) };
}

function format({ path, message }: Problem, { locate }: ComposeOptions): string {
  const where = locate?.(path);
  return `${where === undefined ? '' : `${where}: `}${dotted(path)}: ${message}`;
}

/** Problems in the order in which the user wrote the values; what is missing comes with the object that it is missing from. */
function inOrderOf(raw: unknown, problems: readonly Problem[]): Problem[] {
  const position = new Map<string, number>();
  const visit = (value: unknown, path: ConfigPath) => {
    position.set(dotted(path), position.size);
    if (typeof value !== 'object' || value === null) return;
    for (const [key, inner] of Object.entries(value)) visit(inner, [...path, key]);
  };
  visit(raw, []);
  const rank = (path: ConfigPath): number => position.get(dotted(path)) ?? rank(path.slice(0, -1));
  return [...problems].sort((a, b) => rank(a.path) - rank(b.path));
}

/** Compiling a schema takes far longer than using it, and a program has one list of sections. */
const compiled = new WeakMap<readonly ConfigSection[], { schema: JsonSchema; validate: ReturnType<typeof validator> }>();

function validatorOf(sections: readonly ConfigSection[]) {
  let found = compiled.get(sections);
  if (!found) {
    const schema = strictSchema(sections);
    found = { schema, validate: validator(schema) };
    compiled.set(sections, found);
  }
  return found;
}

function validator(schema: JsonSchema) {
  const ajv = new Ajv({ allErrors: true, verbose: true, useDefaults: true, discriminator: true, strict: true, allowUnionTypes: true });
  ajv.addVocabulary(['hint', 'refused', 'unsupported']);
  ajv.addKeyword(ignoreCase);
  return ajv.compile(schema);
}

/** Replaces a string by its spelling in the enum beside it, or in the alternatives that it tells apart. */
const respell: SchemaValidateFunction = (_, value: unknown, parent, context) => {
  const schema = parent as JsonSchema;
  const tag = schema.discriminator?.propertyName;
  if (tag !== undefined) {
    if (isPlainObject(value) && typeof value[tag] === 'string') value[tag] = spellingOf(value[tag], tags(schema));
  } else if (context) {
    context.parentData[context.parentDataProperty] = spellingOf(value, schema.enum ?? []);
  }
  return true;
};

function spellingOf(value: unknown, choices: readonly unknown[]): unknown {
  if (typeof value !== 'string') return value;
  return choices.find((choice) => typeof choice === 'string' && choice.toLowerCase() === value.toLowerCase()) ?? value;
}

/** Runs before `enum` or `discriminator` looks at the value. */
const ignoreCase: FuncKeywordDefinition = {
  keyword: 'ignoreCase',
  schemaType: 'boolean',
  before: 'enum',
  modifying: true,
  errors: false,
  validate: respell,
};

/**
 * A deep copy of JSON-like data. What JSON can't hold, and `"auto"` that nobody resolves, become problems and are left out; inside what
 * is not supported, "auto" is a value like any other.
 */
function copy(value: unknown, path: ConfigPath, problems: Problem[], options: ComposeOptions, schema?: JsonSchema): unknown {
  if (value === 'auto') {
    const resolved = options.resolveAuto?.(dotted(path));
    if (resolved !== undefined) return resolved;
    problems.push({
      path,
      message:
        '"auto" stands for a value that a trainer fills in from its own arguments, and none did; give a value, or remove the key for its default',
    });
    return undefined;
  }
  if (value === null || typeof value === 'boolean' || typeof value === 'string' || typeof value === 'number') return value;
  if (schema?.unsupported !== undefined) return isJson(value) ? structuredClone(value) : unfit(value, path, problems);
  if (Array.isArray(value)) return value.map((entry, i) => copy(entry, [...path, String(i)], problems, options));
  if (isPlainObject(value)) {
    const inside = (key: string) => schema?.properties?.[key];
    const entries = Object.entries(value).map(
      ([key, entry]) => [key, copy(entry, [...path, key], problems, options, inside(key))] as const,
    );
    return Object.fromEntries(entries.filter(([, entry]) => entry !== undefined));
  }
  return unfit(value, path, problems);
}

function unfit(value: unknown, path: ConfigPath, problems: Problem[]): undefined {
  if (value !== undefined) problems.push({ path, message: `expected a JSON value, got a ${typeof value}` });
  return undefined;
}

function isJson(value: unknown): boolean {
  if (value === null || ['boolean', 'string', 'number'].includes(typeof value)) return true;
  return Array.isArray(value) ? value.every(isJson) : isPlainObject(value) && Object.values(value).every(isJson);
}

function isPlainObject(value: unknown): value is Record<string, unknown> {
  if (typeof value !== 'object' || value === null) return false;
  const prototype = Object.getPrototypeOf(value) as unknown;
  return prototype === null || prototype === Object.prototype;
}

/** A section that says it is off needs none of its other keys; those that DeepSpeed does not know are problems even so. */
function offWithout(config: unknown, path: ConfigPath, known: readonly string[]): Problem[] {
  const parent = path.slice(0, -1).reduce<unknown>((at, key) => (isPlainObject(at) ? at[key] : undefined), config);
  const name = path.at(-1)!;
  const section = isPlainObject(parent) ? parent[name] : undefined;
  if (!isPlainObject(section) || !(section.enabled === false || section.device === 'none')) return [];
  const own = ['enabled', 'device'].filter((key) => key in section);
  const unknown = Object.keys(section).filter((key) => !known.includes(key) && !own.includes(key));
  (parent as Record<string, unknown>)[name] = false;
  return unknown.map((key) => ({ path: [...path, key], message: unknownAmong(key, path, known) }));
}

function remove(value: unknown, path: ConfigPath): void {
  const [key, ...rest] = path as [string, ...string[]];
  if (!isPlainObject(value) || !Object.hasOwn(value, key)) return;
  if (rest.length === 0) delete value[key];
  else remove(value[key], rest);
}

function freeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null) for (const inner of Object.values(Object.freeze(value))) freeze(inner);
  return value;
}

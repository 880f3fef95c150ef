import { Ajv, type FuncKeywordDefinition, type SchemaValidateFunction } from 'ajv';
import { ConfigError } from '../errors.js';
import { show, tags } from './describe.js';
import { type ConfigPath, dotted, explain, type Problem } from './problems.js';
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
  const problems: Problem[] = [];
  if (!isPlainObject(raw)) throw new ConfigError([`a config must be an object, got ${show(raw)}`]);

  const schema = strictSchema(sections);
  const config = copy(raw, [], problems, options) as Record<string, unknown>;
  delete config.$schema;
  const unset = new Set(problems.map(({ path }) => dotted(path)));
  const validate = validator(schema);
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
  if (problems.length > 0) throw new ConfigError(inOrderOf(raw, problems).map((problem) => format(problem, options)));
  return freeze(config) as ConfigOf<Sections>;
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

/** A deep copy of JSON-like data. What JSON can't hold, and `"auto"` that nobody resolves, become problems and are left out. */
function copy(value: unknown, path: ConfigPath, problems: Problem[], options: ComposeOptions): unknown {
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
  if (Array.isArray(value)) return value.map((entry, i) => copy(entry, [...path, String(i)], problems, options));
  if (isPlainObject(value)) {
    const entries = Object.entries(value).map(([key, entry]) => [key, copy(entry, [...path, key], problems, options)] as const);
    return Object.fromEntries(entries.filter(([, entry]) => entry !== undefined));
  }
  if (value !== undefined) problems.push({ path, message: `expected a JSON value, got a ${typeof value}` });
  return undefined;
}

function isPlainObject(value: unknown): value is Record<string, unknown> {
  if (typeof value !== 'object' || value === null) return false;
  const prototype = Object.getPrototypeOf(value) as unknown;
  return prototype === null || prototype === Object.prototype;
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

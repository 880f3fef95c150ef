import { type ComposeOptions, checkConfig } from './compose.js';
import { type ConfigPath, dotted } from './problems.js';
import type { Json, JsonSchema } from './schema.js';
import type { ConfigSection } from './section.js';
import { strictSchema } from './strict.js';

/** How the description of a key begins that keeps its type and range but has nothing to tune here. */
const WITHOUT_EFFECT = 'Accepted without effect';

/** What one key of a config does. */
export interface ConfigKeyReport {
  /** `zero_optimization.stage` */
  readonly path: string;
  /** As it is written; absent for a key that is missing. */
  readonly value?: Json;
  /** Where it stands in the source text, where that is known: `ds_config.json:3:5`. */
  readonly place?: string;
  readonly effect: 'honoured' | 'without effect' | 'switched off' | 'refused';
  /** What the key means, or what is wrong with it. */
  readonly text: string;
}

/**
 * Tells of every key of a config what it will do, in the order in which it is written; problems that no written key has come last.
 *
 * @throws ConfigError where the config is no object
 */
export function explainConfig(sections: readonly ConfigSection[], raw: unknown, options: ComposeOptions = {}): ConfigKeyReport[] {
  const { problems } = checkConfig(sections, raw, options);
  const wrong = new Map(problems.map(({ path, message }) => [dotted(path), message]));
  const schema = strictSchema(sections);
  const written = Object.entries(raw as Record<string, Json | undefined>).flatMap(([key, value]) =>
    value === undefined ? [] : reportsOf(value, [key], schema.properties?.[key], wrong),
  );
  const reports = written.map((report): ConfigKeyReport => {
    wrong.delete(dotted(report.path));
    for (const other of report.entries) wrong.delete(other);
    const { entries, path, ...rest } = report;
    const place = options.locate?.(path);
    return { path: dotted(path), ...rest, ...(place !== undefined && { place }) };
  });
  return [...reports, ...[...wrong].map(([path, text]): ConfigKeyReport => ({ path, effect: 'refused', text }))];
}

interface Report {
  readonly path: ConfigPath;
  readonly value: Json;
  readonly effect: ConfigKeyReport['effect'];
  readonly text: string;
  /** Problems of entries of a list, which the list's report has told. */
  readonly entries: readonly string[];
}

/** A report for the key at `path`, or one for each key inside. */
function reportsOf(value: Json, path: ConfigPath, schema: JsonSchema | undefined, wrong: ReadonlyMap<string, string>): Report[] {
  const name = dotted(path);
  const report = (effect: Report['effect'], text: string, entries: readonly string[] = []): Report[] => [
    { path, value, effect, text, entries },
  ];
  const message = wrong.get(name);
  if (message !== undefined) return report('refused', message);
  if (schema?.unsupported !== undefined && ![...wrong.keys()].some((other) => other.startsWith(`${name}.`)))
    return report('switched off', `not supported: ${schema.unsupported}`);
  if (isObject(value) && Object.keys(value).length > 0)
    return Object.entries(value).flatMap(([key, inner]) => reportsOf(inner, [...path, key], propertyOf(schema, value, key), wrong));
  const entries = [...wrong].filter(([other]) => other.startsWith(`${name}[`));
  if (entries.length > 0)
    return report(
      'refused',
      entries.map((entry) => entry.join(': ')).join('; '),
      entries.map(([other]) => other),
    );
  const description = schema?.description ?? '';
  if (!description.startsWith(WITHOUT_EFFECT)) return report('honoured', description);
  return report('without effect', description.slice(WITHOUT_EFFECT.length).replace(/^[:.]?\s*/, ''));
}

function isObject(value: Json): value is { readonly [key: string]: Json } {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The schema of a key of an object, in the alternative that the object's tag chooses. */
function propertyOf(schema: JsonSchema | undefined, value: { readonly [key: string]: Json }, key: string): JsonSchema | undefined {
  const tag = schema?.discriminator?.propertyName;
  if (tag === undefined) return schema?.properties?.[key];
  const chosen = String(value[tag]).toLowerCase();
  const branch = schema?.oneOf?.find(({ properties }) => String(properties?.[tag]?.const).toLowerCase() === chosen);
  return branch?.properties?.[key];
}

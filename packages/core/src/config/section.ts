import type { FromProperties, JsonSchema } from './schema.js';

/** What a cross-field check may know besides the config. */
export interface ConfigContext {
  /** Data-parallel ranks of the run that the config is for. */
  readonly worldSize: number;
}

/** Reports one problem of a check. `path` is dotted: `optimizer.params.lr`. */
export type ReportProblem = (path: string, message: string) => void;

/** A key that DeepSpeed has and we don't. */
export interface Unsupported {
  /** Why, as the end of a sentence: `the tuner does not exist yet`. */
  readonly reason: string;
  /** The release that may bring it. */
  readonly planned?: string;
  /** What DeepSpeed knows inside: such keys may stand beside `"enabled": false` or `"device": "none"`, without effect. */
  readonly keys?: readonly string[];
}

/** The reason, and the release that may bring it. */
export function whyUnsupported(entry: string | Unsupported): string {
  if (typeof entry === 'string') return entry;
  return entry.planned === undefined ? entry.reason : `${entry.reason} (planned for ${entry.planned})`;
}

/**
 * The part of a config that one package owns: some top-level keys, each with a schema. `Config` is the type of the validated part.
 */
export interface ConfigSection<Config = unknown> {
  /** Title in the reference page. */
  readonly name: string;
  readonly summary: string;
  /** Top-level key -> schema. */
  readonly properties: Readonly<Record<string, JsonSchema>>;
  /** Dotted path of a key that DeepSpeed has and we don't -> the reason. Such a key may only be switched off. */
  readonly unsupported: Readonly<Record<string, string | Unsupported>>;
  /** Rules that tie several fields together; runs when every field by itself is valid. */
  check?(config: Config, report: ReportProblem, context: ConfigContext): void;
  /** Never set; carries the type. */
  readonly config?: Config;
}

/** The type of a config composed of these sections. */
export type ConfigOf<Sections extends readonly ConfigSection[]> = {
  readonly [K in keyof Union<Sections>]: Union<Sections>[K];
};
type Union<Sections extends readonly ConfigSection[]> = (
  Sections[number] extends infer S
    ? S extends ConfigSection<infer C>
      ? (c: C) => void
      : never
    : never
) extends (c: infer All) => void
  ? All
  : never;

/**
 * Declares the section of a package. The schemas are the only place where keys, types, ranges, defaults and descriptions stand; the
 * type of the section follows from them, and objects refuse unknown keys without being told.
 *
 * @example
 * const clipping = defineSection({
 *   name: 'Gradient clipping',
 *   summary: 'Bounds the norm of the gradient of all parameters together.',
 *   properties: { gradient_clipping: { type: 'number', minimum: 0, default: 1, description: 'Largest norm; 0 switches clipping off.' } },
 * });
 */
export function defineSection<const P extends Readonly<Record<string, JsonSchema>>>(definition: {
  readonly name: string;
  readonly summary: string;
  readonly properties: P;
  readonly unsupported?: Readonly<Record<string, string | Unsupported>>;
  check?(config: FromProperties<P>, report: ReportProblem, context: ConfigContext): void;
}): ConfigSection<FromProperties<P>> {
  return { unsupported: {}, ...definition };
}

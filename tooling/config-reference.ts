// Writes what follows from the config schemas: the reference page and the JSON Schema for editors. A test fails when they are out of date.
//   node --import tsx --conditions=@deepspeed-ts/source tooling/config-reference.ts
import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import {
  type ConfigSection,
  describeSchema,
  type Json,
  type JsonSchema,
  strictSchema,
  whyUnsupported,
} from '../packages/core/src/config/index.js';
import { SECTIONS } from '../packages/deepspeed-ts/src/config/index.js';

/** The generated files, path from the repository's root -> text. */
export function generated(): Record<string, string> {
  return {
    'docs/config.md': referencePage(SECTIONS),
    'packages/deepspeed-ts/config.schema.json': `${JSON.stringify(editorSchema(SECTIONS), null, 2)}\n`,
  };
}

const INTRODUCTION = `# The config

<!-- Written by tooling/config-reference.ts from the schemas of the config sections; change those, not this page. -->

One object decides how a model is trained. \`initialize\` takes it as an object, as the path of a JSON or
[HJSON](https://hjson.github.io) file, or as JSON in base64. The keys are DeepSpeed's (0.19.6).

- An unknown key anywhere is an error that names the nearest valid key. A key given twice is an error too.
- Every key of DeepSpeed is honoured, accepted with the effect described here, or refused with the reason.
- \`"auto"\` is refused unless the caller says what it stands for.
- All problems are reported at once, each with file, line and column where the config is a file.

\`npx deepspeed-ts config check ds_config.json --world 8\` prints what each key of a file will do here, without starting anything; with \`--auto\`
it leaves \`"auto"\` to a trainer.

For completion and checks while you write, point your editor at the schema:
\`{ "$schema": "./node_modules/deepspeed-ts/config.schema.json" }\`.
`;

/** The reference page in Markdown. */
function referencePage(sections: readonly ConfigSection[]): string {
  const parts = [INTRODUCTION];
  for (const section of sections) {
    parts.push(`## ${section.name}\n\n${section.summary}\n`);
    parts.push(table(['key', 'value', 'default', 'meaning'], rows(section.properties)));
    for (const [key, schema] of Object.entries(section.properties)) parts.push(...branches(key, schema));
  }
  const unsupported = sections.flatMap((section) => Object.entries(section.unsupported));
  parts.push(
    '## Keys of DeepSpeed that are refused\n\nThey may stand in a config only to say that they are off: `false`, `null`, `{"enabled": false}` or `{"device": "none"}`, beside which the keys that DeepSpeed knows there may stay.\n',
    table(
      ['key', 'reason'],
      unsupported.sort(([a], [b]) => (a < b ? -1 : 1)).map(([key, entry]) => [code(key), whyUnsupported(entry)]),
    ),
  );
  return `${parts.join('\n').trimEnd()}\n`;
}

/** A row for each key, those of nested objects after their parent's. */
function rows(properties: Readonly<Record<string, JsonSchema>>, parent = '', required: readonly string[] = []): string[][] {
  return Object.entries(properties).flatMap(([key, schema]) => {
    const path = parent + key;
    const nested = schema.properties !== undefined;
    const fallback = required.includes(key)
      ? 'required'
      : schema.default === undefined || nested
        ? ''
        : code(JSON.stringify(schema.default));
    const row = [code(path), nested ? 'an object' : describeSchema(schema), fallback, meaning(schema)];
    return [row, ...rows(schema.properties ?? {}, `${path}.`, schema.required)];
  });
}

/** A table for each alternative of a key: `scheduler` by type. */
function branches(key: string, schema: JsonSchema): string[] {
  const tag = schema.discriminator?.propertyName;
  return (schema.oneOf ?? []).flatMap((branch) => {
    const { [tag!]: constant, ...others } = branch.properties!;
    const params = Object.entries(others).flatMap(([name, inner]) => rows(inner.properties ?? {}, `${name}.`, inner.required));
    const intro = Object.values(others).map(meaning).join(' ');
    return [`### ${key}: ${String(constant?.const)}\n\n${intro}\n`, table(['key', 'value', 'default', 'meaning'], params)];
  });
}

function meaning(schema: JsonSchema): string {
  const byReason = new Map<string, string[]>();
  for (const [value, why] of Object.entries(schema.refused ?? {})) byReason.set(why, [...(byReason.get(why) ?? []), code(value)]);
  const refused = [...byReason].map(([why, values]) => `Refused: ${values.join(', ')} (${why}).`);
  // The hint of a constant is the reason why there is no other value.
  const reason = schema.const === undefined || schema.hint === undefined ? [] : [`Nothing else: ${schema.hint}.`];
  return [schema.description ?? '', ...reason, ...refused].join(' ').trim();
}

function table(head: readonly string[], body: readonly (readonly string[])[]): string {
  const lines = [head, head.map(() => '---'), ...body].map(
    (cells) => `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`,
  );
  return `${lines.join('\n')}\n`;
}

const code = (text: string) => `\`${text}\``;

/** The schema in the plain vocabulary of JSON Schema draft 7, with our annotations turned into descriptions. */
function editorSchema(sections: readonly ConfigSection[]): Json {
  return {
    $schema: 'http://json-schema.org/draft-07/schema#',
    title: 'Config of deepspeed-ts',
    ...(plain(strictSchema(sections)) as object),
  };
}

function plain(schema: JsonSchema): Json {
  const { hint, refused, unsupported, ignoreCase, discriminator, properties, oneOf, items, enum: choices, ...rest } = schema;
  const out: Record<string, Json> = { ...(rest as Record<string, Json>) };
  if (unsupported !== undefined) return { deprecated: true, description: `Not supported: ${unsupported}.`, enum: choices! };
  if (schema.description !== undefined) out.description = meaning(schema);
  if (choices !== undefined && ignoreCase) {
    out.anyOf = [{ enum: choices }, { pattern: `^(${choices.map((choice) => anyCase(String(choice))).join('|')})$` }];
  } else if (choices !== undefined) {
    out.enum = choices;
  }
  if (properties) out.properties = Object.fromEntries(Object.entries(properties).map(([key, inner]) => [key, plain(inner)]));
  if (oneOf) out.oneOf = oneOf.map((branch) => plain(ignoreCase ? withAnyCase(branch, discriminator!.propertyName) : branch));
  if (items) out.items = Array.isArray(items) ? items.map(plain) : plain(items as JsonSchema);
  return out;
}

/** A branch whose name may be written in any case. */
function withAnyCase(branch: JsonSchema, tag: string): JsonSchema {
  const name = branch.properties![tag]!;
  return { ...branch, properties: { ...branch.properties, [tag]: { type: 'string', enum: [name.const!], ignoreCase: true } } };
}

const anyCase = (word: string) => word.replace(/[a-z]/gi, (letter) => `[${letter.toUpperCase()}${letter.toLowerCase()}]`);

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const [path, text] of Object.entries(generated())) writeFileSync(new URL(`../${path}`, import.meta.url), text);
}

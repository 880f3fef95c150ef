import { ConfigError } from '@deepspeed-ts/core';

/** Line and column, both from 1. */
export interface Position {
  readonly line: number;
  readonly column: number;
}

export interface Parsed {
  readonly value: unknown;
  /** Where the key or list entry at a path stands. */
  locate(path: readonly string[]): Position | undefined;
}

/**
 * Parses HJSON (https://hjson.github.io), of which JSON is a subset: comments, keys and strings without quotes, optional commas, multi-line
 * strings. Unlike general parsers it refuses a key given twice, as DeepSpeed does, and knows where each key stands.
 *
 * @param name - What to call the text in messages, `ds_config.json`.
 * @throws ConfigError with `name:line:column` for a syntax error or a duplicate key.
 */
export function parseHjson(text: string, name: string): Parsed {
  return new Parser(text, name).parse();
}

const PUNCTUATION = '{}[],:';
const NUMBER = /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/;
const ESCAPES: Record<string, string> = { b: '\b', f: '\f', n: '\n', r: '\r', t: '\t' };

class Parser {
  #at = 0;
  readonly #positions = new Map<string, number>();
  /** The last string without quotes that took punctuation in, a likely culprit when a bracket is missing later. */
  #greedy: { at: number; text: string } | undefined;

  constructor(
    readonly text: string,
    readonly name: string,
  ) {}

  parse(): Parsed {
    if (this.text.startsWith('\uFEFF')) this.#at = 1;
    this.#blank();
    // The braces of the outermost object may be left out.
    const braced = this.#peek() === '{' || this.#peek() === '[';
    const value = braced ? this.#value([]) : this.#members([], undefined);
    this.#blank();
    if (this.#at < this.text.length) this.#fail(`expected the end of the file, got ${this.#token()}`);
    return {
      value,
      locate: (path) => {
        const offset = this.#positions.get(JSON.stringify(path));
        return offset === undefined ? undefined : this.#position(offset);
      },
    };
  }

  #value(path: readonly string[]): unknown {
    const next = this.#peek();
    if (next === '{') {
      this.#at++;
      return this.#members(path, '}');
    }
    if (next === '[') return this.#list(path);
    if (this.text.startsWith("'''", this.#at)) return this.#multiline();
    if (next === '"' || next === "'") return this.#quoted();
    if (next === '') this.#fail('expected a value, got the end of the file');
    if (PUNCTUATION.includes(next)) this.#fail(`expected a value, got ${this.#token()}`);
    return this.#bareValue();
  }

  /** The members of an object up to `end`, or to the end of the text for an outermost object without braces. */
  #members(path: readonly string[], end: '}' | undefined): Record<string, unknown> {
    const open = this.#at - 1;
    const entries = new Map<string, unknown>();
    for (;;) {
      this.#blank();
      if (this.#peek() === '') {
        if (end === undefined) return Object.fromEntries(entries);
        this.#unclosed(end, open);
      }
      if (this.#peek() === end) {
        this.#at++;
        return Object.fromEntries(entries);
      }
      const start = this.#at;
      const key = this.#key();
      const here = [...path, key];
      const first = this.#positions.get(JSON.stringify(here));
      if (first !== undefined) this.#fail(`the key "${key}" stands twice, first at ${this.#show(first)}; remove one`, start);
      this.#positions.set(JSON.stringify(here), start);
      this.#blank();
      if (this.#peek() !== ':') this.#fail(`expected ":" after the key "${key}", got ${this.#token()}`);
      this.#at++;
      this.#blank();
      entries.set(key, this.#value(here));
      this.#separator(end);
    }
  }

  #list(path: readonly string[]): unknown[] {
    const open = this.#at++;
    const values: unknown[] = [];
    for (;;) {
      this.#blank();
      if (this.#peek() === '') this.#unclosed(']', open);
      if (this.#peek() === ']') {
        this.#at++;
        return values;
      }
      const here = [...path, String(values.length)];
      this.#positions.set(JSON.stringify(here), this.#at);
      values.push(this.#value(here));
      this.#separator(']');
    }
  }

  /** Between two members stands a comma or a new line; a comma may also come last. */
  #separator(end: string | undefined): void {
    const before = this.#at;
    this.#blank();
    if (this.#peek() === ',') this.#at++;
    else if (this.#peek() !== end && this.#peek() !== '' && !this.text.slice(before, this.#at).includes('\n')) {
      this.#fail(`expected ","${end === undefined ? '' : `, ${end}`} or a new line, got ${this.#token()}`);
    }
  }

  #key(): string {
    if (this.#peek() === '"' || this.#peek() === "'") return this.#quoted();
    const start = this.#at;
    while (this.#peek() !== '' && !/\s/.test(this.#peek()) && !PUNCTUATION.includes(this.#peek())) this.#at++;
    if (this.#at === start) this.#fail(`expected a key, got ${this.#token()}`);
    return this.text.slice(start, this.#at);
  }

  #quoted(): string {
    const start = this.#at;
    const quote = this.text[this.#at++]!;
    let out = '';
    for (;;) {
      const char = this.text[this.#at++];
      if (char === quote) return out;
      if (char === undefined || char === '\n') this.#fail(`the string that starts here has no closing ${quote} on its line`, start);
      out += char === '\\' ? this.#escape() : char;
    }
  }

  #escape(): string {
    const char = this.text[this.#at++] ?? '';
    if (char === 'u') {
      const digits = this.text.slice(this.#at, this.#at + 4);
      if (!/^[0-9a-fA-F]{4}$/.test(digits)) this.#fail(`expected four hexadecimal digits after \\u, got "${digits}"`);
      this.#at += 4;
      return String.fromCharCode(Number.parseInt(digits, 16));
    }
    if ('"\'\\/'.includes(char) && char !== '') return char;
    return ESCAPES[char] ?? this.#fail(`unknown escape \\${char} in a string`, this.#at - 2);
  }

  /** A string between triple quotes; its lines lose the indentation of the opening quotes. */
  #multiline(): string {
    const start = this.#at;
    const indent = this.#position(start).column - 1;
    const end = this.text.indexOf("'''", start + 3);
    if (end < 0) this.#fail("the string that starts here has no closing '''", start);
    this.#at = end + 3;
    const [first, ...rest] = this.text
      .slice(start + 3, end)
      .replaceAll('\r', '')
      .split('\n') as [string, ...string[]];
    const lines = rest.map((line) => line.slice(Math.min(indent, line.length - line.trimStart().length)));
    if (first.trim() !== '') lines.unshift(first.trimStart());
    if (lines.at(-1) === '' && lines.length > 1) lines.pop();
    return lines.join('\n');
  }

  /** `true`, `false`, `null` and numbers end at punctuation or a comment; anything else is a string to the end of its line. */
  #bareValue(): unknown {
    const newline = this.text.indexOf('\n', this.#at);
    const line = this.text.slice(this.#at, newline < 0 ? this.text.length : newline);
    const word = /^[^,}\]#/]*/.exec(line)![0].trim();
    const rest = line.slice(line.indexOf(word) + word.length).trimStart();
    const ended = rest === '' || ',}]#'.includes(rest[0]!) || rest.startsWith('//') || rest.startsWith('/*');
    if (ended && (word === 'true' || word === 'false' || word === 'null' || NUMBER.test(word))) {
      this.#at += word.length;
      return JSON.parse(word);
    }
    if (/[,:}\]]/.test(line)) this.#greedy = { at: this.#at, text: line.trim() };
    this.#at += line.length;
    return line.trim();
  }

  /** Skips white space and comments. */
  #blank(): void {
    const blank = /(?:\s+|#[^\n]*|\/\/[^\n]*|\/\*[\s\S]*?\*\/)*/y;
    blank.lastIndex = this.#at;
    this.#at += blank.exec(this.text)![0].length;
    if (this.text.startsWith('/*', this.#at)) this.#fail('the comment that starts here has no closing */');
  }

  #unclosed(end: string, open: number): never {
    const { at, text } = this.#greedy ?? { at: 0, text: '' };
    const culprit = text === '' ? '' : `; the text at ${this.#show(at)} has no quotes, so it goes on to the end of its line: "${text}"`;
    this.#fail(`expected ${end} for the ${this.text[open]} at ${this.#show(open)}, got the end of the file${culprit}`);
  }

  #peek(): string {
    return this.text[this.#at] ?? '';
  }

  #token(): string {
    return this.#peek() === '' ? 'the end of the file' : `"${/^\S{1,20}/.exec(this.text.slice(this.#at))?.[0]}"`;
  }

  #position(offset: number): Position {
    const before = this.text.slice(0, offset).split('\n');
    return { line: before.length, column: before.at(-1)!.length + 1 };
  }

  #show(offset: number): string {
    const { line, column } = this.#position(offset);
    return `${line}:${column}`;
  }

  #fail(message: string, offset = this.#at): never {
    throw new ConfigError([`${this.name}:${this.#show(offset)}: ${message}`]);
  }
}

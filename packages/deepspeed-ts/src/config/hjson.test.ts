import fc from 'fast-check';
import Hjson from 'hjson';
import { describe, expect, it } from 'vitest';
import { parseHjson } from './hjson.js';

const parse = (text: string) => parseHjson(text, 'c.hjson').value;

describe('parseHjson', () => {
  it('reads all of JSON as JSON.parse does', () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.jsonValue()), fc.constantFrom(undefined, 2), (value, indent) => {
        const text = JSON.stringify(value, null, indent);
        expect(parse(text)).toEqual(JSON.parse(text));
      }),
    );
  });

  it('reads what the reference implementation of HJSON writes', () => {
    // The reference loses a key named __proto__, and cannot read what it writes for a string that ends in an apostrophe.
    const json = fc.dictionary(fc.string(), fc.jsonValue()).filter((value) => !/__proto__|'/.test(JSON.stringify(value)));
    fc.assert(
      fc.property(json, fc.boolean(), (value, bracesSameLine) => {
        const text = Hjson.stringify(value, { bracesSameLine });
        expect(parse(text)).toEqual(Hjson.parse(text));
      }),
    );
  });

  it.each([
    '{a: 1, b: true # comment\n c: null // another\n d: text to the end, with comma\n e: /* before */ -2.5e3}',
    'outermost: "without braces"\nlist: [\n  1\n  2,\n  three\n]',
    "{text: '''\n      indented\n        more\n      '''\n}",
    '{a: \'single \\u00e9 \\n quotes\', "b" : 01, c: 1e400, d: -, e: tru\n}',
    '{path: /tmp/x#y\n url: http://a/b\n neg: -0.5\n}',
  ])('agrees with the reference implementation on %j', (text) => {
    expect(parse(text)).toEqual(Hjson.parse(text));
  });

  it('skips a byte-order mark', () => {
    expect(parse('\uFEFF{a: 1}')).toEqual({ a: 1 });
  });

  it('refuses a key given twice and says where both stand', () => {
    expect(() => parse('{\n  "a": 1,\n  "b": {"a": 2},\n  "a": 3\n}')).toThrow(
      'c.hjson:4:3: the key "a" stands twice, first at 2:3; remove one',
    );
  });

  it.each([
    ['{"a": 1', 'c.hjson:1:8: expected } for the { at 1:1, got the end of the file'],
    ['{"a" 1}', 'c.hjson:1:6: expected ":" after the key "a", got "1}"'],
    [
      '{"a": 1 "b": 2}',
      'c.hjson:1:16: expected } for the { at 1:1, got the end of the file; the text at 1:7 has no quotes, so it goes on to the end of its line: "1 "b": 2}"',
    ],
    ['{"a": "x" "b": 2}', 'c.hjson:1:11: expected ",", } or a new line, got ""b":"'],
    ['{"a": ,}', 'c.hjson:1:7: expected a value, got ",}"'],
    ['{"a": [1, 2}', 'c.hjson:1:12: expected ",", ] or a new line, got "}"'],
    ['{"a": "x\n"}', 'c.hjson:1:7: the string that starts here has no closing " on its line'],
    ['{"a": "\\q"}', 'c.hjson:1:8: unknown escape \\q in a string'],
    ['{} {}', 'c.hjson:1:4: expected the end of the file, got "{}"'],
    ['{ /* a: 1 }', 'c.hjson:1:3: the comment that starts here has no closing */'],
  ])('points at the mistake in %j', (text, message) => {
    expect(() => parse(text)).toThrow(message);
  });

  it('knows where each key and list entry stands', () => {
    const { locate } = parseHjson('{\n  a: {\n    b: [1,\n      2]\n  }\n}', 'c.hjson');
    expect(locate(['a', 'b'])).toEqual({ line: 3, column: 5 });
    expect(locate(['a', 'b', '1'])).toEqual({ line: 4, column: 7 });
    expect(locate(['a', 'x'])).toBeUndefined();
  });
});

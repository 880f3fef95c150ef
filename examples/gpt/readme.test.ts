import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';

const read = (path: string) => readFileSync(new URL(path, import.meta.url), 'utf8');

it("the README's first example is quickstart.ts", () => {
  const [, example] = /```ts\n(.*?)```/s.exec(read('../../README.md'))!;
  expect(example).toBe(read('quickstart.ts'));
});

it('what CONTRIBUTING shows of an op is what the files hold', () => {
  const shown = [...read('../../CONTRIBUTING.md').matchAll(/<!-- (\S+) -->\n```\w+\n(.*?)```/gs)];
  expect(shown).toHaveLength(2);
  for (const [, path, code] of shown) expect(read(`../../${path}`)).toContain(code);
});

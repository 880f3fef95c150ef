import { existsSync, readFileSync } from 'node:fs';
import { expect, it } from 'vitest';

const url = (path: string) => new URL(`../../${path}`, import.meta.url);
const read = (path: string) => readFileSync(url(path), 'utf8');

it("the README's first example is quickstart.ts", () => {
  const [, example] = /```ts\n(.*?)```/s.exec(read('README.md'))!;
  expect(example).toBe(read('examples/gpt/quickstart.ts'));
});

it('what CONTRIBUTING shows of an op is what the files hold', () => {
  const shown = [...read('CONTRIBUTING.md').matchAll(/<!-- (\S+) -->\n```\w+\n(.*?)```/gs)];
  expect(shown).toHaveLength(2);
  for (const [, path, code] of shown) expect(read(path!)).toContain(code);
});

it.each([
  'README.md',
  'CONTRIBUTING.md',
  'FEATURES.md',
  'docs/training.md',
  'docs/finetuning.md',
  'docs/from-deepspeed.md',
  'docs/data.md',
  'docs/launcher.md',
  'docs/config.md',
])('every link of %s to a file of ours leads to one', (page) => {
  const links = [
    ...read(page)
      .replace(/```.*?```/gs, '')
      .matchAll(/\]\((?!https?:)([^)#]+)/g),
  ].map(([, path]) => path!);
  const lost = links.filter((path) => !existsSync(new URL(path, url(page))));
  expect(lost).toEqual([]);
});

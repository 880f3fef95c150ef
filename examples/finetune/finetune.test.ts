import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { launch } from '@deepspeed-ts/launcher';
import { afterAll, expect, it } from 'vitest';

const folder = mkdtempSync(join(tmpdir(), 'finetune-example-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

it('trains on two ranks at stage 3 and answers', async () => {
  const lines: string[] = [];
  const { exitCode } = await launch({
    script: new URL('./finetune.ts', import.meta.url).pathname,
    ranks: 2,
    args: ['--out', folder, '--pretrain-steps', '2', '--steps', '4'],
    nodeFlags: ['--conditions=@deepspeed-ts/source', '--import', import.meta.resolve('tsx')],
    env: { ...process.env, DEEPSPEED_TS_THREADS: '1', DEEPSPEED_TS_DEVICE: 'cpu' },
    onLine: ({ text }) => lines.push(text),
  });
  expect(exitCode, lines.join('\n')).toBe(0);
  expect(lines.at(-1)).toMatch(/^\d+ of \d+ words that it had not seen are right$/);
  for (const name of ['base', 'tuned']) {
    expect(readdirSync(join(folder, name))).toEqual(expect.arrayContaining(['config.json', 'model.safetensors', 'tokenizer.json']));
  }
  const [first] = readFileSync(join(folder, 'train.jsonl'), 'utf8').split('\n');
  expect(JSON.parse(first!)).toMatchObject({
    prompt: expect.stringMatching(/^Shout: [a-z]+\n$/),
    completion: expect.stringMatching(/^[A-Z]+!$/),
  });
});

import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { launch } from '@deepspeed-ts/launcher';
import { expect, it } from 'vitest';

it("the README's first example trains on two ranks and saves its model", async () => {
  const folder = mkdtempSync(join(tmpdir(), 'gpt-quickstart-'));
  try {
    writeFileSync(join(folder, 'book.txt'), 'It was the best of times, it was the worst of times. '.repeat(60));
    const script = fileURLToPath(new URL('quickstart.ts', import.meta.url));
    const lines: string[] = [];
    const env = { ...process.env, DEEPSPEED_TS_THREADS: '1' };
    const { exitCode } = await launch({ script, ranks: 2, env, cwd: folder, onLine: ({ text }) => lines.push(text) });
    expect(exitCode, lines.join('\n')).toBe(0);
    const losses = lines.map((line) => Number(/^step \d+: (\S+) nats a byte$/.exec(line)?.[1]));
    expect(losses).toHaveLength(10);
    // An untrained model is at ln(256) = 5.5; the letters of this text alone are worth 2.4.
    expect(losses[9]).toBeLessThan(2);
    expect(readdirSync(join(folder, 'my-gpt')).sort()).toEqual(['config.json', 'model.safetensors']);
  } finally {
    rmSync(folder, { recursive: true });
  }
}, 120_000);

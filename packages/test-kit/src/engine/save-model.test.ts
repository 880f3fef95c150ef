import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { runWorld } from '../spawn-world.js';
import type { SavedModelResult } from './save-model-rank.js';

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'save-model-'));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

test('three ranks at stage 3 save in 16 bits without any of them holding more than a unit, and fail together', async () => {
  const results = await runWorld<SavedModelResult>(new URL('./save-model-rank.ts', import.meta.url), 3, {
    args: { directory: join(directory, 'model') },
  });
  for (const { extraBytes, largestUnitBytes, wrong, refusal } of results) {
    expect(wrong).toEqual([]);
    expect(extraBytes).toBeLessThanOrEqual(largestUnitBytes);
    expect(refusal).toMatchObject({
      code: 'ERR_CHECKPOINT_WRITE',
      message: expect.stringMatching(/^\[rank 0\] can't write .*config.json/),
    });
  }
});

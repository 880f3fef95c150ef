import { copyFileSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { DeepSpeedEngine } from '../engine/engine.js';
import { tinyBatch, weightsOf, withEngine } from '../engine/test-support.js';
import { CheckpointError } from './error.js';
import { type Manifest, seal } from './manifest.js';

const directory = mkdtempSync(join(tmpdir(), 'damage-'));
const at = (name: string) => join(directory, 'good', name);
let files: string[];
afterAll(() => rmSync(directory, { recursive: true, force: true }));

beforeAll(() =>
  withEngine({ scheduler: { type: 'WarmupLR', params: { warmup_num_steps: 5 } } }, async (engine) => {
    await engine.trainBatch([tinyBatch(0)]);
    await (await engine.saveCheckpoint(directory, { tag: 'good', clientState: { note: 'é', tiny: 1e-12 } })).finished;
    files = readdirSync(join(directory, 'good'));
  }),
);

const fresh = (body: (engine: DeepSpeedEngine) => Promise<void>) =>
  withEngine({ scheduler: { type: 'WarmupLR', params: { warmup_num_steps: 5 } } }, body);

/** Damages a file, expects that loading names it and changes nothing, and mends it. */
async function expectNoticed(engine: DeepSpeedEngine, name: string, damage: (path: string) => void, code: string): Promise<void> {
  const path = at(name);
  const spare = join(directory, 'spare');
  copyFileSync(path, spare);
  damage(path);
  try {
    const error = await engine.loadCheckpoint(directory).catch((thrown: unknown) => thrown as CheckpointError);
    expect(error, name).toBeInstanceOf(CheckpointError);
    expect(error).toMatchObject({ code, path, message: expect.stringContaining(path) });
  } finally {
    copyFileSync(spare, path);
  }
  expect(engine.globalSteps).toBe(0);
}

it('any bit of any file that has flipped is noticed, and the file named', () =>
  fresh(async (engine) => {
    const before = await weightsOf(engine);
    expect(files.length).toBe(4);
    const place = fc.record({ file: fc.nat(3), byte: fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), bit: fc.nat(7) });
    await fc.assert(
      fc.asyncProperty(place, ({ file, byte, bit }) => {
        const flip = (path: string) => {
          const bytes = readFileSync(path);
          bytes[Math.floor(byte * bytes.length)]! ^= 1 << bit;
          writeFileSync(path, bytes);
        };
        return expectNoticed(engine, files[file]!, flip, 'ERR_CHECKPOINT_CORRUPT');
      }),
      { numRuns: 150 },
    );
    expect(await weightsOf(engine)).toEqual(before);
    expect(await engine.loadCheckpoint(directory)).toMatchObject({ clientState: { note: 'é', tiny: 1e-12 } });
  }));

it('a file that is cut anywhere, or missing, is named', () =>
  fresh(async (engine) => {
    const cut = fc.record({ file: fc.nat(3), keep: fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }) });
    await fc.assert(
      fc.asyncProperty(cut, ({ file, keep }) => {
        const truncate = (path: string) => truncateSync(path, Math.floor(keep * readFileSync(path).length));
        return expectNoticed(engine, files[file]!, truncate, 'ERR_CHECKPOINT_CORRUPT');
      }),
      { numRuns: 40 },
    );
    for (const name of files) await expectNoticed(engine, name, (path) => rmSync(path), 'ERR_CHECKPOINT_MISSING');
    expect(await engine.loadCheckpoint(directory)).toBeDefined();
  }));

it('a checkpoint of another version of the format is not called damaged', () =>
  fresh((engine) => {
    const asVersion = (version: number) => (path: string) => {
      const { checksum: _, ...body } = JSON.parse(readFileSync(path, 'utf8')) as Manifest;
      writeFileSync(path, `${JSON.stringify(seal({ ...body, version } as Manifest), null, 2)}\n`);
    };
    return expectNoticed(engine, 'deepspeed-ts.json', asVersion(2), 'ERR_CHECKPOINT_MISMATCH');
  }));

import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { namedParameters, SafetensorsFile } from '@deepspeed-ts/core';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { loadConfig } from '../config/index.js';
import { tinyBatch, tinyModel, usable, weightsOf, withEngine } from '../engine/test-support.js';
import { renameParameters } from './test-support.js';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'checkpoint-options-'));
});
afterEach(() => {
  rmSync(directory, { recursive: true, force: true });
  vi.restoreAllMocks();
});

/** One step, saved; gives the weights. */
const saveOne = (options: object = {}, config: object = {}, model = tinyModel()) =>
  withEngine(
    config,
    async (engine) => {
      await engine.trainBatch([tinyBatch(0)]);
      await (await engine.saveCheckpoint(directory, { tag: 'good', ...options })).finished;
      return weightsOf(engine);
    },
    { model },
  );

describe('parameters under other names', () => {
  // What the model calls transformer.x was saved as body.x.
  const newName = (name: string) => name.replace(/^body\./, 'transformer.');

  async function saveUnderOldNames(): Promise<number[]> {
    const weights = await saveOne();
    const path = join(directory, 'good');
    renameParameters(path, (name) => name.replace('transformer.', 'body.'));
    return weights;
  }

  it('are reported with what they look like, and taken over by a table or a function', async () => {
    const trained = await saveUnderOldNames();
    await withEngine({}, async (engine) => {
      await expect(engine.loadCheckpoint(directory)).rejects.toThrow(
        /transformer\.wte\.weight \[17, 8\] is missing in the checkpoint; renamed from body\.wte\.weight\?[\s\S]*\{ rename: \{ "body\.[^"]*": "transformer\./,
      );
      const loose = await engine.loadCheckpoint(directory, { strict: false, moduleOnly: true });
      const names = [...namedParameters(engine.model).keys()];
      expect([...loose!.missing].sort()).toEqual(names.sort());
      expect(Object.values(loose!.renamed).sort()).toEqual(names);
      for (const [old, now] of Object.entries(loose!.renamed)) expect(newName(old)).toBe(now);
      for (const rename of [newName, loose!.renamed]) {
        const loaded = await engine.loadCheckpoint(directory, { rename });
        expect(loaded).toMatchObject({ missing: [], unexpected: [], renamed: {} });
        expect(await weightsOf(engine)).toEqual(trained);
      }
    });
  });

  it('must be there, and may not become one', async () => {
    await saveUnderOldNames();
    await withEngine({}, async (engine) => {
      const load = (rename: object) => expect(engine.loadCheckpoint(directory, { rename: rename as never })).rejects;
      await load({ 'body.wte.wieght': 'transformer.wte.weight' }).toThrow(
        /no parameter 'body\.wte\.wieght'; did you mean 'body\.wte\.weight'\?/,
      );
      await load(() => 'one').toThrow(/rename: two parameters of .* would be one/);
    });
  });
});

describe('frozen parameters', () => {
  const frozen = () => {
    const model = tinyModel();
    for (const [name, parameter] of namedParameters(model)) if (name.includes('wte')) parameter.requiresGrad = false;
    return model;
  };

  it('are left out when that is asked for, and are not missed when it is loaded', async () => {
    const trained = await saveOne({ excludeFrozen: true }, {}, frozen());
    using file = new SafetensorsFile(join(directory, 'good', 'model.safetensors'));
    expect(file.names.some((name) => name.includes('wte'))).toBe(false);
    await withEngine(
      {},
      async (engine) => {
        expect(await engine.loadCheckpoint(directory)).toMatchObject({ missing: [], unexpected: [] });
        // The same seed, and they have not moved.
        expect(await weightsOf(engine)).toEqual(trained);
      },
      { model: frozen() },
    );
  });
});

describe('saving', () => {
  it('right after loading gives the same files', async () => {
    await saveOne();
    const files = (tag: string) => JSON.parse(readFileSync(join(directory, tag, 'deepspeed-ts.json'), 'utf8')).files;
    for (const stage of [0, 3]) {
      await withEngine({ zero_optimization: { stage } }, async (engine) => {
        await engine.loadCheckpoint(directory, { tag: 'good' });
        await (await engine.saveCheckpoint(directory, { tag: `again-${stage}` })).finished;
      });
      expect(files(`again-${stage}`)).toEqual(files('good'));
    }
  });

  it('keeps as many as the config says, unless the call says otherwise', async () => {
    await withEngine({ checkpoint: { keep_last: 1 } }, async (engine) => {
      for (const tag of ['a', 'b']) await (await engine.saveCheckpoint(directory, { tag })).finished;
      expect(readdirSync(directory).sort()).toEqual(['b', 'latest']);
      await (await engine.saveCheckpoint(directory, { tag: 'c', keepLast: 2 })).finished;
      expect(readdirSync(directory).sort()).toEqual(['b', 'c', 'latest']);
    });
  });

  it('tells size and rate where the config asks for it', async () => {
    const log = vi.spyOn(console, 'log').mockImplementation(() => {});
    await saveOne({}, { checkpoint: { writer: { show_statistics: true } } });
    expect(log).toHaveBeenCalledWith(
      expect.stringMatching(/^\[saveCheckpoint\] good: .* GB of rank 0, copied in .* s, safe after .* s, .* GB\/s$/),
    );
  });
});

describe('the section of the config', () => {
  const checkpoint = (section: object) => loadConfig({ ...usable, checkpoint: section }, 1).checkpoint;

  it("has DeepSpeed's keys and defaults, spelled as it likes", () => {
    expect(checkpoint({})).toMatchObject({ tag_validation: 'Warn', load_universal: false, keep_last: null, writer: null });
    expect(checkpoint({ tag_validation: 'FAIL', load_universal: true, parallel_write: { pipeline_stage: true } })).toMatchObject({
      tag_validation: 'Fail',
    });
    expect(checkpoint({ writer: { type: 'fast', decoupled: true, data_parallel: 'REPLICA' } }).writer).toMatchObject({
      type: 'FAST',
      show_statistics: false,
    });
  });

  it('refuses what would lose checkpoints or scatter them, and misspelled keys', () => {
    expect(() => checkpoint({ use_node_local_storage: true })).toThrow(/all ranks write to one directory/);
    expect(() => checkpoint({ writer: { type: 'MOCK' } })).toThrow(/it writes nothing/);
    expect(() => checkpoint({ writer: { data_parallel: 'SOCKET' } })).toThrow(/every rank writes its part/);
    expect(() => checkpoint({ tag_validaton: 'Fail' })).toThrow(/did you mean.*tag_validation/);
  });
});

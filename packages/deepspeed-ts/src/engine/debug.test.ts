import { namedParameters } from '@deepspeed-ts/core';
import { describe, expect, it } from 'vitest';
import type { DeepSpeedEngine } from './engine.js';
import { tinyBatch, withEngine } from './test-support.js';

/** Everything that is exported of a kind, by name. */
async function exported(engine: DeepSpeedEngine, kind: string): Promise<Record<string, number[]>> {
  const all: Record<string, number[]> = {};
  for await (const [name, { data }] of engine.optimizerState(kind)) all[name] = [...data];
  return all;
}

describe('optimizer states of single parameters', () => {
  const stages = [0, 1, 2, 3].map((stage) => ({ zero_optimization: { stage } }));

  it.each(stages)('are there where the optimizer keeps them: Muon, %o', async (config) => {
    const muon = { optimizer: { type: 'Muon', params: { lr: 0.01 } }, ...config };
    await withEngine(muon, async (engine) => {
      await engine.trainBatch([tinyBatch(0)]);
      const missing = [];
      for (const state of engine.optimizerStateNames) {
        const all = await exported(engine, state);
        for (const [name] of namedParameters(engine.model)) {
          const [full, local] = [
            await engine.debug.getFullOptimizerState(name, state),
            await engine.debug.getLocalOptimizerState(name, state),
          ];
          expect(full && [...full.data], `${state} of ${name}`).toEqual(all[name]);
          expect(local && [...local.data]).toEqual(all[name]);
          if (full) continue;
          missing.push(name);
          await expect(engine.debug.setFullOptimizerState(name, state, [])).rejects.toThrow(
            `[${name}] the optimizer keeps no ${state} of it`,
          );
        }
      }
      expect(missing.length).toBeGreaterThan(0);
    });
  });

  it('that are kept in 8 bits are read as values, and not set', async () => {
    const params = { lr: 0.01, min_8bit_size: 1 };
    await withEngine({ optimizer: { type: 'AdamW8bit', params } }, async (engine) => {
      await engine.trainBatch([tinyBatch(0)]);
      const name = 'transformer.h.0.mlp.c_fc.weight';
      const { data } = (await engine.debug.getFullOptimizerState(name, 'exp_avg'))!;
      expect([...data]).toEqual((await exported(engine, 'exp_avg'))[name]);
      expect(Math.max(...data)).toBeGreaterThan(0);
      await expect(engine.debug.setFullOptimizerState(name, 'exp_avg', data)).rejects.toThrow(
        'is kept in 8 bits, and can be read but not set',
      );
    });
  });

  it('are none of the gradients that noSync has kept back', async () => {
    await withEngine({}, async (engine) => {
      engine.noSync(() => engine.backward(engine.forward(tinyBatch(0))));
      await expect(engine.debug.getFullGradient('lm_head.weight')).rejects.toThrow('gradients of noSync() have not been reduced yet');
    });
  });
});

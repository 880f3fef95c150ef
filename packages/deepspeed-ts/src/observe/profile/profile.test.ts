import { mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DecoderLM, decoderConfig, gpt2 } from '@deepspeed-ts/transformers';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { tinyBatch, tinyModel, withEngine } from '../../engine/test-support.js';
import { flopsPerToken, matmulParameters } from '../model-flops.js';
import type { ModelProfile, ModuleProfile } from './profile.js';

afterEach(() => void vi.restoreAllMocks());

// The tiny GPT: 17 tokens, 1 layer, 2 heads, width 8, 6 positions, a feed-forward part of 32; batches of 2 x 6 tokens.
const TOKENS = 12;
const ATTENTION = 4 * 8 * 6; // per token of a sequence of 6, all of the square; causal attention is half
const PRODUCTS = { qkv: 3 * 8 * 8, out: 8 * 8, mlp: 2 * 8 * 32, head: 17 * 8 };

function find(profile: ModuleProfile, path: string): ModuleProfile {
  const found = profile.path === path ? profile : profile.modules.map((module) => find(module, path)).find(Boolean);
  return found!;
}

async function profiled(config: object = {}, model: DecoderLM = tinyModel()): Promise<ModelProfile> {
  return withEngine(
    config,
    async (engine) => {
      await engine.trainBatch([tinyBatch(0)]);
      const profile = engine.profile();
      await engine.trainBatch([tinyBatch(1)]);
      return profile;
    },
    { model },
  );
}

describe('a profile', () => {
  it('counts 2 FLOPs for each weight of a product and token, and attention over half the square', async () => {
    const { model } = await profiled();
    const attention = find(model, 'transformer.h.0.attn');
    const mlp = find(model, 'transformer.h.0.mlp');
    expect(attention.forward.flops).toBe(TOKENS * (2 * (PRODUCTS.qkv + PRODUCTS.out) + ATTENTION / 2));
    expect(mlp.forward.flops).toBe(TOKENS * 2 * PRODUCTS.mlp);
    expect(find(model, 'transformer.h.0').forward.flops).toBe(attention.forward.flops + mlp.forward.flops);
    expect(model.forward.flops).toBe(attention.forward.flops + mlp.forward.flops + TOKENS * 2 * PRODUCTS.head);
  });

  it('counts twice as many for backward, in the modules that the work belongs to', async () => {
    const { model } = await profiled();
    for (const path of ['', 'transformer.h.0', 'transformer.h.0.attn', 'transformer.h.0.mlp']) {
      const module = find(model, path);
      expect(module.backward.flops, path).toBe(2 * module.forward.flops);
      expect(module.forward.milliseconds, path).toBeGreaterThan(0);
      expect(module.backward.milliseconds, path).toBeGreaterThan(0);
    }
    expect(model.recompute).toEqual({ flops: 0, milliseconds: 0 });
  });

  it('agrees with the convention of MFU', async () => {
    const { model } = await profiled();
    expect(model.forward.flops + model.backward.flops).toBe(TOKENS * flopsPerToken(tinyModel(), 6)!);
  });

  it('tells what is computed again apart', async () => {
    const recomputing = tinyModel();
    recomputing.recompute = true;
    const { model } = await profiled({}, recomputing);
    expect(model.backward.flops).toBe(2 * model.forward.flops);
    expect(model.recompute.flops).toBe(find(model, 'transformer.h.0').forward.flops);
  });

  it('has the parameters of each module, a shared one once in the whole', async () => {
    const { model } = await profiled();
    const block = 2 * 16 + (3 * 8 * 8 + 3 * 8) + (8 * 8 + 8) + (8 * 32 + 32) + (32 * 8 + 8);
    expect(find(model, 'transformer.h.0').parameters).toBe(block);
    expect(model.parameters).toBe(block + 17 * 8 + 6 * 8 + 16);
  });

  it('is the mean of the micro-batches of its step', async () => {
    await withEngine({ gradient_accumulation_steps: 3 }, async (engine) => {
      const profile = engine.profile();
      await engine.trainBatch([0, 1, 2].map(tinyBatch));
      const { microBatches, step, model } = await profile;
      expect({ microBatches, step }).toEqual({ microBatches: 3, step: 1 });
      expect(model.forward.flops + model.backward.flops).toBe(TOKENS * flopsPerToken(tinyModel(), 6)!);
    });
  });

  it('changes no bit of training', async () => {
    const losses = (config: object) =>
      withEngine(config, async (engine) => [await engine.trainBatch([tinyBatch(0)]), await engine.trainBatch([tinyBatch(1)])]);
    vi.spyOn(console, 'log').mockImplementation(() => {});
    expect(await losses({ flops_profiler: { enabled: true, profile_step: 0 } })).toEqual(await losses({}));
  });

  it('is refused to whoever waits when the engine is disposed before another step', async () => {
    let profile: Promise<ModelProfile>;
    await withEngine({}, async (engine) => {
      profile = engine.profile();
      profile.catch(() => {});
    });
    await expect(profile!).rejects.toMatchObject({ code: 'ERR_DISPOSED' });
  });
});

describe('flops_profiler', () => {
  const printed = async (settings: object, steps = 3): Promise<string> => {
    const log = vi.spyOn(console, 'log').mockImplementation(() => {});
    await withEngine({ flops_profiler: { enabled: true, ...settings } }, async (engine) => {
      for (let step = 0; step < steps; step++) await engine.trainBatch([tinyBatch(step)]);
    });
    const lines = log.mock.calls.map(([line]) => String(line));
    log.mockRestore();
    return lines.join('\n');
  };

  it('prints the profile of one step: totals, the most expensive modules and the tree', async () => {
    const text = await printed({ top_modules: 2 });
    expect(text).toMatch(/^profile of step 2 on rank 0 of 1/);
    expect(text.match(/profile of step/g)).toHaveLength(1);
    // Which modules of so small a model take longest is for the clock to say, not for a test.
    const [, first, second] = text.match(/depth 1: \w+ (\d+\.\d+) ms, \w+ (\d+\.\d+) ms$/m)!;
    expect(Number(first)).toBeGreaterThanOrEqual(Number(second));
    expect(text).toMatch(/^ {4}transformer\.h\.0\.attn \(CausalSelfAttention\) /m);
  });

  it('shows as many levels as asked for, and no tree where details are not wanted', async () => {
    const shallow = await printed({ module_depth: 1 });
    expect(shallow).toMatch(/transformer\.h\.0 \(DecoderBlock\)/);
    expect(shallow).not.toMatch(/transformer\.h\.0\.attn/);
    expect(await printed({ detailed: false })).not.toMatch(/transformer\.h\.0/);
  });

  it('writes to a file instead: the table, or the profile itself', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'profile-'));
    expect(await printed({ output_file: join(folder, 'profile.txt') })).toBe('');
    expect(readFileSync(join(folder, 'profile.txt'), 'utf8')).toMatch(/^profile of step 2/);
    await printed({ output_file: join(folder, 'profile.json'), profile_step: 0 });
    expect(JSON.parse(readFileSync(join(folder, 'profile.json'), 'utf8'))).toMatchObject({ step: 1, model: { type: 'DecoderLM' } });
  });
});

describe('the FLOPs of a model', () => {
  it('count all matrices but tables that are only looked up in', () => {
    expect(matmulParameters(tinyModel())).toBe(PRODUCTS.qkv + PRODUCTS.out + PRODUCTS.mlp + PRODUCTS.head);
    const shape = {
      vocab_size: 100,
      num_hidden_layers: 3,
      hidden_size: 16,
      num_attention_heads: 4,
      num_key_value_heads: 2,
      intermediate_size: 40,
    };
    const model = new DecoderLM(decoderConfig({ model_type: 'llama', max_position_embeddings: 32, tie_word_embeddings: false, ...shape }));
    expect(matmulParameters(model)).toBe(3 * (16 * 16 * 2 + 2 * 16 * 8 + 3 * 16 * 40) + 100 * 16);
  });

  it('counts of experts as many as a token uses, and the router', () => {
    const model = new DecoderLM(
      decoderConfig({
        model_type: 'mixtral',
        vocab_size: 100,
        hidden_size: 16,
        num_hidden_layers: 3,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        intermediate_size: 40,
        num_local_experts: 8,
        num_experts_per_tok: 2,
      }),
    );
    expect(matmulParameters(model)).toBe(3 * (16 * 16 * 2 + 2 * 16 * 8 + 16 * 8 + 2 * 3 * 16 * 40) + 100 * 16);
  });

  it('are 124 M parameters and what attention takes for GPT-2', () => {
    const model = new DecoderLM(gpt2({ vocabSize: 50257, layers: 12, heads: 12, dim: 768, context: 1024, dropout: 0 }));
    expect(flopsPerToken(model, 1024)).toBe(6 * (12 * 12 * 768 * 768 + 50257 * 768) + 6 * 12 * 768 * 1024);
  });
});

import { namedParameters } from '@deepspeed-ts/core';
import { describe, expect, it } from 'vitest';
import { DecoderLM } from '../decoder/decoder.js';
import { rotaryFrequencies } from '../decoder/rope-scaling.js';
import { decoderConfig, modelTypes } from './index.js';

const sizes = {
  vocab_size: 32,
  hidden_size: 32,
  intermediate_size: 48,
  num_hidden_layers: 6,
  num_attention_heads: 4,
  num_key_value_heads: 2,
};
const config = (model_type: string, more: object = {}) => decoderConfig({ ...sizes, model_type, ...more });
const windows = (model_type: string, more: object = {}) => config(model_type, more).layerAttention.map(({ window }) => window);
const rotary = (model_type: string, more: object = {}) => config(model_type, more).layerAttention[0]!.rotary!;

describe('what a config.json leaves out', () => {
  it('is as transformers has it', () => {
    expect(config('llama')).toMatchObject({ maxPositions: 2048, normEps: 1e-6, headDim: 8, tieEmbeddings: false, attentionBias: false });
    expect(config('mistral').maxPositions).toBe(131_072);
    expect(config('qwen3')).toMatchObject({ headDim: 128, attentionBias: false });
    expect(config('phi3')).toMatchObject({ normEps: 1e-5, maxPositions: 4096 });
    expect(config('gemma2')).toMatchObject({
      headDim: 256,
      attentionScale: 1 / 16,
      attentionSoftcap: 50,
      logitSoftcap: 30,
      tieEmbeddings: true,
    });
    expect(config('gemma3_text')).toMatchObject({ attentionSoftcap: 0, logitSoftcap: 0, maxPositions: 131_072 });
    expect(config('gpt_neox')).toMatchObject({ block: 'parallel', tieEmbeddings: false, attentionBias: true });
    expect(config('opt', { ffn_dim: 48 })).toMatchObject({ mlp: 'relu', block: 'pre', dropout: { residual: 0.1 } });
    expect(config('bloom', { n_layer: 2, n_head: 4 })).toMatchObject({ mlp: 'gelu_tanh', mlpDim: 128, tieEmbeddings: true });
  });

  it('is not what is null', () => {
    expect(windows('mistral')[0]).toBe(4096);
    expect(windows('mistral', { sliding_window: null })[0]).toBe(0);
    expect(config('gemma2', { attn_logit_softcapping: null, final_logit_softcapping: null })).toMatchObject({
      attentionSoftcap: 0,
      logitSoftcap: 0,
    });
  });
});

describe('windows', () => {
  it('lie where the family or layer_types says', () => {
    const qwen = { use_sliding_window: true, sliding_window: 7, max_window_layers: 4 };
    expect(windows('qwen2', qwen)).toEqual([0, 0, 0, 0, 7, 7]);
    expect(windows('qwen2', { ...qwen, use_sliding_window: false })).toEqual([0, 0, 0, 0, 0, 0]);
    expect(windows('gemma2', { sliding_window: 7 })).toEqual([7, 0, 7, 0, 7, 0]);
    expect(windows('gemma3_text', { sliding_window: 7 })).toEqual([7, 7, 7, 7, 7, 0]);
    const types = ['full_attention', 'sliding_attention', ...Array(4).fill('full_attention')];
    expect(windows('qwen3', { ...qwen, layer_types: types })).toEqual([0, 7, 0, 0, 0, 0]);
    expect(() => windows('qwen3', { layer_types: ['full_attention'] })).toThrow('expected 6 of sliding_attention and full_attention');
  });
});

describe('rotary positions', () => {
  const scaled = { factor: 8, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 16 };

  it('are the same in the words of transformers 4 and 5', () => {
    const five = { rope_parameters: { rope_type: 'llama3', rope_theta: 5e5, ...scaled } };
    expect(rotary('llama', { rope_theta: 5e5, rope_scaling: { type: 'llama3', ...scaled } })).toEqual(rotary('llama', five));
    expect(rotary('gpt_neox', { rotary_pct: 0.5, rotary_emb_base: 100 })).toEqual(
      rotary('gpt_neox', { rope_parameters: { rope_type: 'default', rope_theta: 100, partial_rotary_factor: 0.5 } }),
    );
  });

  it('of Gemma 3 have two bases, and layers of a kind share a table', () => {
    const { layerAttention } = config('gemma3_text', { rope_scaling: { rope_type: 'linear', factor: 8 } });
    const [local, full] = [layerAttention[0]!.rotary!, layerAttention[5]!.rotary!];
    expect(local).toMatchObject({ theta: 1e4, scaling: { kind: 'none' } });
    expect(full).toMatchObject({ theta: 1e6, scaling: { kind: 'linear', factor: 8 } });
    expect(layerAttention[3]!.rotary).toBe(local);
  });

  it("keep Llama 3.1's high frequencies and divide the low ones", () => {
    const rope_scaling = { rope_type: 'llama3', ...scaled, original_max_position_embeddings: 64 };
    const { frequencies } = rotaryFrequencies(rotary('llama', { rope_scaling }), 8);
    const plain = rotaryFrequencies(rotary('llama'), 8).frequencies;
    expect(frequencies[0]).toBe(plain[0]); // turns more than 4 times in 64 positions
    expect(frequencies[3]).toBeCloseTo(plain[3]! / 8, 12); // less than once
  });

  it('of YaRN sharpen scores by 0.1 ln(factor) + 1', () => {
    const yarn = rotary('llama', { rope_scaling: { rope_type: 'yarn', factor: 4, original_max_position_embeddings: 16 } });
    expect(rotaryFrequencies(yarn, 8).factor).toBeCloseTo(0.1 * Math.log(4) + 1, 12);
  });

  it('turn by length where they are dynamic, beyond what the model was made for', () => {
    const dynamic = rotary('llama', { max_position_embeddings: 16, rope_scaling: { rope_type: 'dynamic', factor: 2 } });
    const base = (length: number) => rotaryFrequencies(dynamic, length).frequencies[1]!;
    expect(base(8)).toBe(base(16));
    // theta (2 L / 16 - 1)^(8 / 6) at L = 32, to the power of -2 / 8
    expect(base(32)).toBeCloseTo((1e4 * 3 ** (8 / 6)) ** (-1 / 4), 7);
  });

  it('of a kind that nobody knows are refused with those that are', () => {
    expect(() => config('llama', { rope_scaling: { type: 'mrope' } })).toThrow(
      'types are default, linear, dynamic, yarn, llama3 and longrope',
    );
    expect(() => config('llama', { rope_scaling: { type: 'linear' } })).toThrow('factor = undefined');
  });
});

describe('what is not computed is refused by name', () => {
  it.each([
    ['llama', { hidden_act: 'mish' }, 'hidden_act = "mish" of a llama is not supported; supported: silu, swish, gelu'],
    ['opt', { ffn_dim: 8, layerdrop: 0.1 }, 'layerdrop = 0.1 of a opt'],
    ['opt', { ffn_dim: 8, layer_norm_elementwise_affine: false }, 'layer_norm_elementwise_affine = false'],
    ['gemma2', { use_bidirectional_attention: true }, 'use_bidirectional_attention = true'],
  ] as const)('%s with %o', (type, more, message) => {
    expect(() => config(type, more)).toThrow(message);
  });
});

describe('names of parameters', () => {
  const names = (model_type: string, more: object = {}) => [...namedParameters(new DecoderLM(config(model_type, more))).keys()];

  it('are those of the checkpoints, also where maps lie in the block itself or the head is called otherwise', () => {
    expect(names('opt', { ffn_dim: 48, word_embed_proj_dim: 16 })).toEqual(
      expect.arrayContaining(['model.decoder.project_in.weight', 'model.decoder.layers.0.fc1.bias', 'model.decoder.final_layer_norm.bias']),
    );
    expect(names('gpt_neox')).toEqual(expect.arrayContaining(['embed_out.weight', 'gpt_neox.layers.5.attention.query_key_value.weight']));
    expect(names('phi3')).toContain('model.layers.0.mlp.gate_up_proj.weight');
    expect(names('gemma3_text')).toContain('model.layers.0.self_attn.q_norm.weight');
  });
});

it('lists the families that it reads', () => {
  expect(modelTypes).toEqual(
    ['bloom', 'gemma2', 'gemma3_text', 'gpt2', 'gpt_neox', 'llama', 'mistral', 'mixtral', 'opt', 'phi3', 'qwen2', 'qwen3'].sort(),
  );
});

import { type Module, namedParameters, unitsOf } from '@deepspeed-ts/core';
import { describe, expect, it } from 'vitest';
import { gpt2 } from '../families/gpt2.js';
import { decoderConfig } from '../families/index.js';
import { DecoderLM, nextTokenLabels } from './decoder.js';

function shapes(model: Module) {
  return Object.fromEntries([...namedParameters(model)].map(([name, { shape }]) => [name, shape]));
}

describe('names of parameters', () => {
  it("are those of Hugging Face's GPT-2", () => {
    const model = new DecoderLM(gpt2({ vocabSize: 11, layers: 1, heads: 2, dim: 4, context: 6 }));
    expect(shapes(model)).toEqual({
      'transformer.wte.weight': [11, 4],
      'transformer.wpe.weight': [6, 4],
      'transformer.h.0.ln_1.weight': [4],
      'transformer.h.0.ln_1.bias': [4],
      'transformer.h.0.attn.c_attn.weight': [4, 12],
      'transformer.h.0.attn.c_attn.bias': [12],
      'transformer.h.0.attn.c_proj.weight': [4, 4],
      'transformer.h.0.attn.c_proj.bias': [4],
      'transformer.h.0.ln_2.weight': [4],
      'transformer.h.0.ln_2.bias': [4],
      'transformer.h.0.mlp.c_fc.weight': [4, 16],
      'transformer.h.0.mlp.c_fc.bias': [16],
      'transformer.h.0.mlp.c_proj.weight': [16, 4],
      'transformer.h.0.mlp.c_proj.bias': [4],
      'transformer.ln_f.weight': [4],
      'transformer.ln_f.bias': [4],
    });
  });

  it("are those of Hugging Face's Llama, with grouped heads and a head of its own", () => {
    const config = {
      model_type: 'llama',
      vocab_size: 11,
      hidden_size: 8,
      num_hidden_layers: 1,
      num_attention_heads: 4,
      num_key_value_heads: 2,
      intermediate_size: 12,
      max_position_embeddings: 6,
    };
    const model = new DecoderLM(decoderConfig(config));
    expect(shapes(model)).toEqual({
      'model.embed_tokens.weight': [11, 8],
      'model.layers.0.input_layernorm.weight': [8],
      'model.layers.0.self_attn.q_proj.weight': [8, 8],
      'model.layers.0.self_attn.k_proj.weight': [4, 8],
      'model.layers.0.self_attn.v_proj.weight': [4, 8],
      'model.layers.0.self_attn.o_proj.weight': [8, 8],
      'model.layers.0.post_attention_layernorm.weight': [8],
      'model.layers.0.mlp.gate_proj.weight': [12, 8],
      'model.layers.0.mlp.up_proj.weight': [12, 8],
      'model.layers.0.mlp.down_proj.weight': [8, 12],
      'model.norm.weight': [8],
      'lm_head.weight': [11, 8],
    });
  });
});

describe('units', () => {
  it('of a decoder are its tables, its blocks, and the rest', () => {
    const model = new DecoderLM(gpt2({ vocabSize: 11, layers: 2, heads: 2, dim: 4, context: 6 }));
    expect(unitsOf(model).map(({ name }) => name)).toEqual([
      'transformer.wte',
      'transformer.wpe',
      'transformer.h.0',
      'transformer.h.1',
      'root',
    ]);
  });
});

describe('a config.json', () => {
  it('of another family is refused with what there is', () => {
    expect(() => decoderConfig({ model_type: 'bert' })).toThrow("config.json has model_type 'bert'; supported: bloom, gemma2, ");
    expect(() => decoderConfig({})).toThrow('config.json has no model_type');
  });

  it('must say what a model needs, and nothing that is not there', () => {
    const gpt = { ...gpt2({ vocabSize: 11, layers: 1, heads: 2, dim: 4, context: 6 }).huggingFace };
    expect(() => decoderConfig({ ...gpt, n_embd: undefined })).toThrow("has no 'n_embd'");
    expect(() => decoderConfig({ ...gpt, n_head: 3 })).toThrow(/headDim must be a positive integer, got 1\.3.*dim 4 over 3 heads/);
    expect(() => decoderConfig({ ...gpt, activation_function: 'mish' })).toThrow('activation_function = "mish" of a gpt2 is not supported');
    expect(() => decoderConfig({ ...gpt, scale_attn_by_inverse_layer_idx: true })).toThrow('scale_attn_by_inverse_layer_idx = true');
  });
});

describe('labels', () => {
  it('say the next token of the same row, and nothing at its end', () => {
    expect([...nextTokenLabels([1, 2, 3, 4, 5, 6], 3)]).toEqual([2, 3, -100, 5, 6, -100]);
  });
});

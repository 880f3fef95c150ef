import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ReferenceBackend } from '../backend/reference-backend.js';
import { add } from '../ops/index.js';
import { tensor } from '../tensor/create.js';
import { Device } from '../tensor/device.js';
import type { Tensor } from '../tensor/tensor.js';
import { decoderConfig, gpt2 } from './decoder/config.js';
import { DecoderLM, nextTokenLabels } from './decoder/decoder.js';
import { init } from './init.js';
import { Embedding, Linear } from './layers.js';
import { LocalStore } from './local-store.js';
import { Module, namedModules, namedParameters, unitsOf } from './module.js';
import { Parameter } from './parameter.js';

class Block extends Module<[Tensor], Tensor> {
  override readonly isUnit = true;
  readonly layer = new Linear(2, 2);
  readonly inner = new Embedding(3, 2); // a unit inside a unit belongs to the outer one

  forward(x: Tensor): Tensor {
    return this.layer.call(x);
  }
}

class Model extends Module<[Tensor], Tensor> {
  readonly embed = new Embedding(5, 2);
  readonly blocks = [new Block(), new Block()];
  readonly gain = new Parameter([2], init.constant(1));
  readonly head = new Linear(2, 5, { bias: false });
  readonly notAModule = [1, 2];

  constructor() {
    super();
    Object.assign(this.head, { weight: this.embed.weight });
  }

  forward(x: Tensor): Tensor {
    return x;
  }
}

const shapes = (model: Module) => Object.fromEntries([...namedParameters(model)].map(([name, { shape }]) => [name, shape]));

describe('names', () => {
  it('are dotted paths through fields and lists; a tied parameter comes once, by its first name', () => {
    expect(Object.keys(shapes(new Model()))).toEqual([
      'gain',
      'embed.weight',
      'blocks.0.layer.weight',
      'blocks.0.layer.bias',
      'blocks.0.inner.weight',
      'blocks.1.layer.weight',
      'blocks.1.layer.bias',
      'blocks.1.inner.weight',
    ]);
    expect([...namedModules(new Block())].map(([name]) => name)).toEqual(['', 'layer', 'inner']);
  });

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
  it('are the modules that say so, outermost first; what is under none is one of its own', () => {
    const units = unitsOf(new Model()).map(({ name, parameters }) => [name, [...parameters.keys()]]);
    expect(units).toEqual([
      ['embed', ['embed.weight']],
      ['blocks.0', ['blocks.0.layer.weight', 'blocks.0.layer.bias', 'blocks.0.inner.weight']],
      ['blocks.1', ['blocks.1.layer.weight', 'blocks.1.layer.bias', 'blocks.1.inner.weight']],
      ['root', ['gain']],
    ]);
  });

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

  it('hold every parameter once', () => {
    for (const model of [new Model(), new Block()]) {
      const names = unitsOf(model).flatMap(({ parameters }) => [...parameters.keys()]);
      expect(names.sort()).toEqual([...namedParameters(model).keys()].sort());
    }
  });
});

describe('a model with a store', () => {
  let device: Device;
  beforeEach(() => {
    device = new Device(new ReferenceBackend());
  });
  afterEach(() => {
    expect(device.describeLive()).toEqual([]);
  });

  it('has no values before, and one store at a time', () => {
    const model = new Block();
    expect(() => model.layer.weight.use()).toThrow('a parameter of shape [2, 2] has no storage yet');
    const store = new LocalStore(model, device);
    const before = store.stateDict().get('layer.weight')!.readSync();
    expect(() => new LocalStore(model, device)).toThrow('this model is already held by another store');
    expect(model.layer.weight.use().readSync()).toEqual(before);
    store.dispose();
    new LocalStore(model, device).dispose();
    expect(() => model.layer.weight.use()).toThrow('no storage');
  });

  it('begins with values that depend on seed and name alone', () => {
    const values = (seed: number) => {
      const store = new LocalStore(new Block(), device, { seed });
      const result = [...store.stateDict().get('layer.weight')!.readSync().data];
      store.dispose();
      return result;
    };
    expect(values(1)).toEqual(values(1));
    expect(values(1)).not.toEqual(values(2));
    const bound = 1 / Math.sqrt(2);
    for (const value of values(1)) expect(Math.abs(value)).toBeLessThanOrEqual(bound);
  });

  it('frees at the end of a call what it did not return', () => {
    const model = new (class extends Module<[Tensor], Tensor> {
      forward(x: Tensor): Tensor {
        add(x, x);
        return add(add(x, x), x);
      }
    })();
    using x = tensor(device, [1, 2], 'f32');
    using y = model.call(x);
    expect([...y.readSync().data]).toEqual([3, 6]);
    expect(device.liveBuffers).toBe(2);
  });
});

describe('a config.json', () => {
  it('of another family is refused with what there is', () => {
    expect(() => decoderConfig({ model_type: 'bert' })).toThrow("config.json has model_type 'bert'; supported: gpt2, llama");
    expect(() => decoderConfig({})).toThrow('config.json has no model_type');
  });

  it('must say what a model needs, and nothing that is not there', () => {
    const gpt = { ...gpt2({ vocabSize: 11, layers: 1, heads: 2, dim: 4, context: 6 }).huggingFace };
    expect(() => decoderConfig({ ...gpt, n_embd: undefined })).toThrow("has no 'n_embd'");
    expect(() => decoderConfig({ ...gpt, n_head: 3 })).toThrow(/headDim must be a positive integer, got 1\.3.*dim 4 over 3 heads/);
    expect(() => decoderConfig({ ...gpt, activation_function: 'relu' })).toThrow('activation_function = "relu" is not supported yet');
    expect(() => decoderConfig({ ...gpt, scale_attn_by_inverse_layer_idx: true })).toThrow('scale_attn_by_inverse_layer_idx = true');
  });
});

describe('labels', () => {
  it('say the next token of the same row, and nothing at its end', () => {
    expect([...nextTokenLabels([1, 2, 3, 4, 5, 6], 3)]).toEqual([2, 3, -100, 5, 6, -100]);
  });
});

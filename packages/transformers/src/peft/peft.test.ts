import { Device, Linear, LocalStore, namedParameters, ReferenceBackend } from '@deepspeed-ts/core';
import { describe, expect, it } from 'vitest';
import { DecoderLM } from '../decoder/decoder.js';
import { gpt2 } from '../families/gpt2.js';
import { decoderConfig } from '../families/index.js';
import { fullConfig, type LoraConfig } from './config.js';
import { configFile, parseConfigFile } from './config-file.js';
import { getPeftModel } from './peft-model.js';
import { targetsOf } from './targets.js';

const llama = () =>
  new DecoderLM(
    decoderConfig({
      model_type: 'llama',
      vocab_size: 11,
      hidden_size: 8,
      num_hidden_layers: 3,
      num_attention_heads: 2,
      num_key_value_heads: 1,
      intermediate_size: 12,
    }),
  );

const targets = (config: LoraConfig) => [...targetsOf(llama(), fullConfig(config)).keys()];

describe('target modules', () => {
  it('are all linear layers but the head, where nothing is said', () => {
    expect(targets({}).length).toBe(3 * 7);
    expect(targets({}).filter((name) => name.includes('lm_head'))).toEqual([]);
  });

  it('are named by the ends of their names, by whole names or by a pattern', () => {
    expect(targets({ targetModules: ['q_proj', 'layers.1.mlp.up_proj'] })).toEqual([
      'model.layers.0.self_attn.q_proj',
      'model.layers.1.self_attn.q_proj',
      'model.layers.1.mlp.up_proj',
      'model.layers.2.self_attn.q_proj',
    ]);
    expect(targets({ targetModules: /.*\.[02]\.mlp\.down_proj/ })).toEqual([
      'model.layers.0.mlp.down_proj',
      'model.layers.2.mlp.down_proj',
    ]);
    // The whole name, as in PEFT.
    expect(() => targets({ targetModules: /down_proj/ })).toThrow('no layer matches');
  });

  it('may be of some blocks alone, and without some of them', () => {
    expect(targets({ targetModules: ['q_proj', 'v_proj'], layersToTransform: [0, 2], excludeModules: ['2.self_attn.v_proj'] })).toEqual([
      'model.layers.0.self_attn.q_proj',
      'model.layers.0.self_attn.v_proj',
      'model.layers.2.self_attn.q_proj',
    ]);
  });

  it('that match nothing, or nothing linear, are an error with a way out', () => {
    expect(() => targets({ targetModules: ['q_porj'] })).toThrow("no layer matches q_porj; did you mean 'q_proj'?");
    expect(() => targets({ targetModules: ['embed_tokens'] })).toThrow(
      'model.embed_tokens is an embedding; adapters are for linear layers',
    );
    expect(() => targets({ targetModules: ['lm_head'] })).toThrow('lm_head is the head');
    expect(() => getPeftModel(llama(), { modulesToSave: ['lm_haed'] })).toThrow('the model has no module lm_haed; there are');
    expect(() => getPeftModel(llama(), { r: 0 })).toThrow('r: expected a positive integer, got 0');
    expect(() => getPeftModel(llama(), { loraDropout: 1 })).toThrow('loraDropout: expected a probability below 1, got 1');
  });
});

describe('a model with adapters', () => {
  it('trains these and what is saved beside them, and nothing else', () => {
    const model = getPeftModel(llama(), { r: 2, targetModules: ['q_proj'], modulesToSave: ['norm'], layersToTransform: 1 });
    const trained = [...namedParameters(model)].filter(([, { requiresGrad }]) => requiresGrad);
    expect(trained.map(([name, { shape }]) => [name, shape])).toEqual([
      ['model.layers.1.self_attn.q_proj.lora_A.weight', [2, 8]],
      ['model.layers.1.self_attn.q_proj.lora_B.weight', [8, 2]],
      ['model.norm.weight', [8]],
    ]);
    expect(model.countParameters().trainable).toBe(2 * 8 + 8 * 2 + 8);
    expect([...model.savedParameters().keys()]).toEqual([
      'base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight',
      'base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight',
      'base_model.model.model.norm.weight',
    ]);
    expect(() => getPeftModel(model.base)).toThrow('the model has adapters already');
  });

  it('begins as the base model: A uniform within the bound of its inputs, B zero', () => {
    const device = new Device(new ReferenceBackend());
    const base = new DecoderLM(gpt2({ vocabSize: 11, layers: 1, heads: 2, dim: 16, context: 6 }));
    // On a device already, which takes the adapters too.
    const store = new LocalStore(base, device);
    const model = getPeftModel(base, { r: 4 });
    const values = [...model.adapters.values()].map(({ adapter, layer }) => {
      const [a, b] = [adapter.a.use().readSync().data, adapter.b.use().readSync().data];
      return { a, b, bound: 1 / Math.sqrt(layer.inputs) };
    });
    for (const { a, b, bound } of values) {
      expect(Math.max(...a.map(Math.abs))).toBeLessThanOrEqual(bound);
      expect(Math.max(...a.map(Math.abs))).toBeGreaterThan(0.8 * bound);
      expect(new Set(b)).toEqual(new Set([0]));
    }
    model.unload();
    expect([...namedParameters(base).keys()].filter((name) => name.includes('lora'))).toEqual([]);
    expect(base instanceof DecoderLM && [...model.adapters.values()][0]!.layer instanceof Linear).toBe(true);
    store.dispose();
    expect(device.describeLive()).toEqual([]);
  });
});

describe('adapter_config.json', () => {
  const facts = { targetModules: ['q_proj'], fanInFanOut: false, baseModel: undefined };

  it('comes back as it was', () => {
    const config = fullConfig({
      r: 4,
      loraAlpha: 7,
      loraDropout: 0.1,
      targetModules: ['q_proj'],
      useRslora: true,
      modulesToSave: ['norm'],
      layersToTransform: [1],
      rankPattern: { q_proj: 3 },
      alphaPattern: { 'layers.1.self_attn.q_proj': 2 },
      initLoraWeights: 'gaussian',
    });
    expect(parseConfigFile(configFile(config, facts), 'here')).toEqual(config);
  });

  it('that asks for what does not exist here is refused by name', () => {
    const file = configFile(fullConfig({}), facts);
    expect(() => parseConfigFile({ ...file, use_dora: true }, 'here')).toThrow('here asks for what is not supported: use_dora = true');
    expect(() => parseConfigFile({ ...file, bias: 'all' }, 'here')).toThrow('bias = "all"');
    expect(() => parseConfigFile({ ...file, peft_type: 'IA3' }, 'here')).toThrow('peft_type = "IA3"');
    expect(() => parseConfigFile({ ...file, init_lora_weights: 'pissa' }, 'here')).toThrow('init_lora_weights = "pissa"');
    expect(() => parseConfigFile({ ...file, target_modules: null }, 'here')).toThrow('expected r, lora_alpha and target_modules');
  });
});

import { expect, it } from 'vitest';
import { configJson } from './config-json.js';

it('fields that Python declares as float keep a fraction, so that transformers reads the file; others stay as they are', () => {
  const config = {
    vocab_size: 30,
    router_jitter_noise: 0,
    final_logit_softcapping: 30,
    rms_norm_eps: 1e-6,
    initializer_range: 0.02,
    last: 1,
  };
  const text = configJson({ ...config, attn_logit_softcapping: null, nested: { init_std: -2 } });
  expect(text).toContain('"router_jitter_noise": 0.0,\n');
  expect(text).toContain('"final_logit_softcapping": 30.0,\n');
  expect(text).toContain('"init_std": -2.0\n');
  expect(text).toContain('"rms_norm_eps": 0.000001,\n');
  expect(text).toContain('"vocab_size": 30,\n');
  expect(JSON.parse(text)).toEqual({ ...config, attn_logit_softcapping: null, nested: { init_std: -2 } });
});

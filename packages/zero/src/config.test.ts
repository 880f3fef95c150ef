import { ConfigError, composeConfig } from '@deepspeed-ts/core';
import { describe, expect, it } from 'vitest';
import { zeroOptions, zeroSection } from './config.js';

const parse = (zero_optimization: unknown) => composeConfig([zeroSection], { zero_optimization }).zero_optimization;

function problemsOf(zero: unknown): readonly string[] {
  try {
    parse(zero);
  } catch (error) {
    if (error instanceof ConfigError) return error.problems;
    throw error;
  }
  return [];
}

describe('zero_optimization', () => {
  it('has the defaults of DeepSpeed', () => {
    expect(composeConfig([zeroSection], {}).zero_optimization).toMatchObject({
      stage: 0,
      overlap_comm: null,
      contiguous_gradients: true,
      reduce_scatter: true,
      reduce_bucket_size: 5e8,
      allgather_bucket_size: 5e8,
      sub_group_size: 1e9,
      stage3_prefetch_bucket_size: 5e7,
      stage3_param_persistence_threshold: 1e5,
    });
  });

  it('refuses a stage that does not exist, and a boolean with a hint', () => {
    expect(problemsOf({ stage: 4 })).toEqual([expect.stringMatching(/^zero_optimization\.stage: expected 0, 1, 2 or 3 .*, got 4$/)]);
    expect(problemsOf({ stage: true })).toEqual([expect.stringContaining('(a number: 0 keeps all whole')]);
    expect(problemsOf(true)).toEqual(['zero_optimization: expected an object (write {"stage": 1} rather than true), got true']);
  });

  it('names the key that a typo meant', () => {
    expect(problemsOf({ stge: 1, overlap_com: true, max_live_parameters: 1 })).toEqual([
      'zero_optimization.stge: unknown key; did you mean "zero_optimization.stage"?',
      'zero_optimization.overlap_com: unknown key; did you mean "zero_optimization.overlap_comm"?',
      'zero_optimization.max_live_parameters: unknown key; did you mean "zero_optimization.stage3_max_live_parameters"?',
    ]);
  });

  it('refuses by name, with the reason, what would need something that does not exist', () => {
    expect(problemsOf({ offload_optimizer: { device: 'cpu' }, zero_quantized_weights: true, contiguous_gradients: false })).toEqual([
      expect.stringMatching(/^zero_optimization\.offload_optimizer: not supported: optimizer state stays/),
      expect.stringMatching(/^zero_optimization\.zero_quantized_weights: not supported: quantised all-gather/),
      expect.stringMatching(/^zero_optimization\.contiguous_gradients: expected true \(the gradients of a unit are views/),
    ]);
    expect(problemsOf({ offload_optimizer: { device: 'none' }, zero_quantized_weights: false })).toEqual([]);
  });

  it('overlaps and prefetches unless told not to', () => {
    expect(zeroOptions(parse({ stage: 3 }))).toEqual({ stage: 3, overlap: true, prefetch: true });
    expect(zeroOptions(parse({ stage: 2, overlap_comm: false, stage3_prefetch_bucket_size: 0 }))).toEqual({
      stage: 2,
      overlap: false,
      prefetch: false,
    });
  });
});

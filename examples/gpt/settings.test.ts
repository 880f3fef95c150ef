import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadConfig } from 'deepspeed-ts';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseArguments } from './args.js';
import { settingsOf } from './settings.js';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'gpt-settings-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

const settings = (flags: string[], config?: object, ranks = 2) => {
  const path = join(folder, 'ds_config.json');
  if (config) writeFileSync(path, JSON.stringify(config));
  return settingsOf(parseArguments(['--data', 'book.txt', ...flags, ...(config ? ['--deepspeed', path] : [])]), ranks);
};
const auto = 'auto';
const scheduler = { type: 'WarmupCosineLR', params: { total_num_steps: auto, warmup_num_steps: auto, cos_min_ratio: auto } };

describe('flags alone', () => {
  it('are a config of their own: AdamW, linear warm-up, a cosine down to --min-lr', () => {
    const { config, ...rest } = settings(['--batch', '6', '--lr', '2e-3', '--min-lr', '1e-4', '--steps', '500']);
    expect(rest).toEqual({ steps: 500, batch: 6, accumulation: 1 });
    // What initialize() makes of it is what settingsOf made of it.
    expect(loadConfig(config, 2)).toMatchObject({
      train_batch_size: 12,
      gradient_clipping: 1,
      optimizer: { type: 'AdamW', params: { lr: 2e-3, betas: [0.9, 0.99], weight_decay: 0.1 } },
      scheduler: {
        type: 'WarmupCosineLR',
        params: { total_num_steps: 500, warmup_num_steps: 25, warmup_type: 'linear', cos_min_ratio: 0.05 },
      },
    });
  });

  it('need no scheduler where the rate stays the same', () => {
    expect(settings(['--lr', '1e-3', '--min-lr', '1e-3', '--warmup', '0']).config).toMatchObject({ scheduler: undefined });
  });
});

describe('flags beside a DeepSpeed config', () => {
  it('fill in what it leaves to them', () => {
    const { config, batch } = settings(['--batch', '3', '--steps', '40', '--beta2', '0.95'], {
      train_batch_size: auto,
      train_micro_batch_size_per_gpu: auto,
      optimizer: { type: 'AdamW', params: { lr: auto, betas: auto, weight_decay: auto } },
      scheduler,
    });
    expect(batch).toBe(3);
    expect(config).toMatchObject({
      train_batch_size: 6,
      optimizer: { params: { lr: 1e-3, betas: [0.9, 0.95], weight_decay: 0.1 } },
      scheduler: { params: { total_num_steps: 40, warmup_num_steps: 2, cos_min_ratio: 0.1 } },
    });
  });

  it('give an optimizer and a scheduler to a config without', () => {
    const { config } = settings([], { train_batch_size: 8, zero_optimization: { stage: 3 } });
    expect(config).toMatchObject({ optimizer: { type: 'AdamW' }, scheduler: { type: 'WarmupCosineLR' }, zero_optimization: { stage: 3 } });
  });

  it('follow the config where the user did not give them', () => {
    const { steps, batch, accumulation } = settings([], {
      train_batch_size: 24,
      gradient_accumulation_steps: 4,
      scheduler: { type: 'WarmupCosineLR', params: { total_num_steps: 77 } },
    });
    expect({ steps, batch, accumulation }).toEqual({ steps: 77, batch: 3, accumulation: 4 });
  });

  it('must agree with it where the user did', () => {
    const config = { train_micro_batch_size_per_gpu: 4, optimizer: { type: 'AdamW', params: { lr: 3e-4 } } };
    expect(() => settings(['--batch', '4', '--lr', '3e-4'], config)).not.toThrow();
    expect(() => settings(['--batch', '8', '--lr', '1e-3'], config)).toThrow(
      /--batch 8: .*ds_config.json says 4 \(train_micro_batch_size_per_gpu\); change one of them, or write "auto" there for the flag to decide\n--lr 0.001: .* says 0.0003/,
    );
  });

  it('leave an error of the config to its own words', () => {
    expect(() => settings([], { train_batch_size: 33 })).toThrow('train_batch_size: expected a multiple of ranks = 2, got 33');
    expect(() => settings([], { train_batch_size: 4, zero_optimisation: { stage: 3 } })).toThrow('zero_optimization');
  });
});

describe('--json', () => {
  it('silences the lines that the engine would print between', () => {
    const config = { train_batch_size: 4, steps_per_print: 10 };
    expect(settings([], config).config).toMatchObject({ steps_per_print: 10 });
    expect(settings(['--json'], config).config).toMatchObject({ steps_per_print: null });
  });
});

import { init, linearCrossEntropy, Module, namedParameters, Parameter, type Tensor, unitsOf, WorldOfOne } from '@deepspeed-ts/core';
import { cpuBackend, cpuMemoryModel } from '@deepspeed-ts/kernels-cpu';
import { DecoderLM, decoderConfig } from '@deepspeed-ts/transformers';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { initialize } from '../initialize.js';
import { parseBytes } from './bytes.js';
import { DryBackend } from './dry-backend.js';
import { DryCommunicator } from './dry-communicator.js';
import { DoesNotFitError } from './errors.js';
import { type MemoryPlan, type PlanOptions, type Proposal, plan } from './index.js';
import { merged } from './request.js';

/** Llama 3 8B, and one small enough to be planned many times. */
const large = {
  model_type: 'llama',
  vocab_size: 128256,
  hidden_size: 4096,
  num_hidden_layers: 32,
  num_attention_heads: 32,
  num_key_value_heads: 8,
  intermediate_size: 14336,
  max_position_embeddings: 8192,
};
const small = {
  ...large,
  vocab_size: 8000,
  hidden_size: 512,
  num_hidden_layers: 6,
  num_attention_heads: 8,
  num_key_value_heads: 4,
  intermediate_size: 1536,
  max_position_embeddings: 512,
};
const adam = { optimizer: { type: 'AdamW', params: { lr: 1e-4 } } };
const bf16 = { bf16: { enabled: true } };
const stage = (n: number) => ({ zero_optimization: { stage: n } });

async function refused(options: PlanOptions): Promise<DoesNotFitError> {
  const error: unknown = await plan(options).then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(DoesNotFitError);
  return error as DoesNotFitError;
}

const total = (rows: MemoryPlan['steady']) => Object.values(rows).reduce((a, b) => a + b, 0);

describe('a plan', () => {
  // Rajbhandari et al., arXiv:1910.02054, section 3, without what gradients and activations add for a while.
  it.each([
    ['stage 0: 2Ψ + 12Ψ', 0, (psi: number) => 14 * psi],
    ['stage 1: 2Ψ + 12Ψ/N', 1, (psi: number, n: number) => 2 * psi + (12 * psi) / n],
    ['stage 2: 2Ψ + 12Ψ/N', 2, (psi: number, n: number) => 2 * psi + (12 * psi) / n],
    ['stage 3: 14Ψ/N', 3, (psi: number, n: number) => (14 * psi) / n],
  ])("between steps holds what ZeRO's formulas say of 8 billion parameters: %s", async (_, n, formula) => {
    const config = { train_micro_batch_size_per_gpu: 1, ...bf16, ...stage(n), ...adam };
    const planned = await plan({ modelConfig: large, config, worldSize: 64, sequenceLength: 128 });
    // What is gathered ahead for the next pass is the rank's for a while.
    const { parameters, master, optimizer } = planned.steady;
    const expected = formula(planned.modelParameters, 64);
    expect(planned.modelParameters).toBe(8_030_261_248);
    expect(Math.abs(parameters + master + optimizer - expected) / expected).toBeLessThan(1e-3);
  });

  it('has rows that add up to the peak, and says when that is', async () => {
    const config = { train_micro_batch_size_per_gpu: 2, gradient_accumulation_steps: 3, ...bf16, ...stage(2), ...adam };
    const planned = await plan({ modelConfig: small, config, worldSize: 4, device: 'cpu', sequenceLength: 64 });
    expect(total(planned.peak.rows)).toBe(planned.peak.bytes);
    const units = unitsOf(new DecoderLM(decoderConfig(small))).map(({ name }) => name);
    expect(units).toContain(planned.peak.when.unit);
    expect(['forward', 'backward']).toContain(planned.peak.when.phase);
    expect(planned.required).toBe(planned.reserved + planned.workspace);
    expect(planned.reserved).toBeGreaterThanOrEqual(planned.peak.bytes);
    expect(planned.settings).toMatchObject({ stage: 2, dtype: 'bf16', microBatch: 2, accumulation: 3, batch: 24, recompute: false });
  });

  it('needs less of everything with every way to save, and nothing of what is switched off', async () => {
    const at = (config: object) =>
      plan({ modelConfig: small, config: { train_micro_batch_size_per_gpu: 4, ...adam, ...config }, worldSize: 4, sequenceLength: 256 });
    const [whole, sharded, recomputed, halved, narrow] = await Promise.all([
      at({}),
      at(stage(3)),
      at({ activation_checkpointing: { enabled: true } }),
      at({ train_micro_batch_size_per_gpu: 2 }),
      at(bf16),
    ]);
    expect(whole.peak.rows).toMatchObject({ master: 0, gathered: 0 });
    expect(sharded.steady.optimizer).toBeLessThan(whole.steady.optimizer / 3.9);
    for (const other of [recomputed, halved, narrow]) expect(other.peak.rows.activations).toBeLessThan(whole.peak.rows.activations);
    expect(narrow.peak.rows.master).toBeGreaterThan(0);
  });

  it('leaves the model free, and takes models that are not language models', async () => {
    const model = new Classifier();
    const batch = (samples: number) => ({
      x: { data: new Float32Array(samples * 8), shape: [samples, 8] },
      labels: { data: new Int32Array(samples), shape: [samples] },
    });
    const options = { model, batch, worldSize: 2, config: { train_micro_batch_size_per_gpu: 3, ...adam }, device: 'cpu' as const };
    const planned = await plan(options);
    expect(planned.modelParameters).toBe(40);
    expect(await plan(options)).toEqual(planned);
    for (const parameter of namedParameters(model).values()) expect(() => parameter.store).toThrow('no storage yet');
  });

  it('refuses questions that mean nothing', async () => {
    const config = { train_micro_batch_size_per_gpu: 1, ...adam };
    await expect(plan({ config, worldSize: 1 })).rejects.toThrow('expected a model or a modelConfig');
    await expect(plan({ modelConfig: small, config, worldSize: 0 })).rejects.toThrow('worldSize: expected a number of ranks');
    await expect(plan({ modelConfig: small, config, worldSize: 1, sequenceLength: 9000 })).rejects.toThrow('at most 512 tokens, got 9000');
    await expect(plan({ modelConfig: small, config, worldSize: 1, memory: '80 bananas' })).rejects.toThrow("got '80 bananas'");
    await expect(plan({ modelConfig: small, config: { ...config, stge: 3 }, worldSize: 1 })).rejects.toThrow('stge: unknown key');
  });
});

interface Labelled {
  readonly x: Tensor;
  readonly labels: Tensor;
}

/** Logistic regression. */
class Classifier extends Module<[Labelled], Tensor> {
  readonly weight = new Parameter([5, 8], init.constant(1));

  forward({ x, labels }: Labelled): Tensor {
    return linearCrossEntropy(x, this.weight, labels);
  }
}

describe('a run that does not fit', () => {
  const config = { train_batch_size: 32, train_micro_batch_size_per_gpu: 4, ...stage(0), ...adam };
  const options: PlanOptions = { modelConfig: small, config, worldSize: 4, sequenceLength: 512, device: 'cpu' };

  it('is refused with the plan, the memory there is, and a change that fits, as data and in words', async () => {
    const { required } = await plan(options);
    const error = await refused({ ...options, memory: required - 1 });
    expect(error).toMatchObject({ code: 'ERR_DOES_NOT_FIT', memory: required - 1, plan: { required } });
    expect(error.proposal!.plan.required).toBeLessThan(required);
    expect(error.message).toMatch(
      /^\[plan\] each of 4 ranks needs .* its device has .*The cheapest change that fits .*"zero_optimization"/,
    );
    expect(await plan({ ...options, memory: required })).toMatchObject({ required });
  });

  it('shards the optimizer before it slows anything down, and asks for more ranks last of all', async () => {
    const { required, steady } = await plan(options);
    const first = (await refused({ ...options, memory: required - 1 })).proposal!;
    expect(first).toMatchObject({ config: { zero_optimization: { stage: 1 } }, worldSize: 4 });
    expect(Object.keys(first.config)).toEqual(['zero_optimization']);
    const last = (await refused({ ...options, memory: Math.floor(total(steady) / 2) })).proposal!;
    expect(last.worldSize).toBeGreaterThan(4);
    expect(last.changes.length).toBeGreaterThan(3);
    expect(last.plan.required).toBeLessThanOrEqual(total(steady) / 2);
  });

  it('without any way out says so', async () => {
    const error = await refused({ ...options, memory: 1000 });
    expect(error.proposal).toBeUndefined();
    expect(error.message).toContain('No change that this planner knows of fits');
  });

  it('always gets a proposal that fits when it is merged into the config, with the same samples in a step', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.record({
          stage: fc.constantFrom(0, 1, 2, 3),
          precision: fc.constantFrom({}, bf16, { fp16: { enabled: true } }),
          micro: fc.constantFrom(1, 4, 6),
          accumulation: fc.constantFrom(1, 2),
          worldSize: fc.constantFrom(1, 2, 4),
          share: fc.double({ min: 0.2, max: 0.95, noNaN: true }),
        }),
        async ({ precision, micro, accumulation, worldSize, share, ...rest }) => {
          const raw = {
            train_micro_batch_size_per_gpu: micro,
            gradient_accumulation_steps: accumulation,
            ...precision,
            ...stage(rest.stage),
            ...adam,
          };
          const asked: PlanOptions = { modelConfig: small, config: raw, worldSize, sequenceLength: 256, device: 'cpu' };
          const { required, settings } = await plan(asked);
          const memory = Math.floor(required * share);
          const { proposal } = await refused({ ...asked, memory });
          if (proposal) await expectFits(asked, proposal, memory, settings.batch);
        },
      ),
      { numRuns: 8 },
    );
  }, 120_000);
});

async function expectFits(asked: PlanOptions, proposal: Proposal, memory: number, samples: number): Promise<void> {
  const changed = {
    ...asked,
    config: merged(asked.config as Record<string, unknown>, proposal.config),
    worldSize: proposal.worldSize,
    memory,
  };
  const planned = await plan(changed);
  expect(planned).toEqual(proposal.plan);
  expect(planned.settings.batch).toBe(Math.max(samples, planned.settings.microBatch * proposal.worldSize));
}

describe('initialize', () => {
  const config = { train_micro_batch_size_per_gpu: 1, ...bf16, ...adam };
  const model = () => new DecoderLM(decoderConfig(small));

  it('refuses before it allocates what surely cannot fit, and names what would', async () => {
    const backend = cpuBackend();
    const { live, reserved } = backend.memory();
    const mine = model();
    const communicator = new DryCommunicator(0, 4);
    const error: unknown = await initialize({ model: mine, config, backend, communicator, memoryLimit: '256MiB' }).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(DoesNotFitError);
    expect((error as Error).message).toMatch(
      /needs .* for weights and optimizer state alone, and its device has 256 MiB\. The cheapest change/,
    );
    expect(backend.memory()).toMatchObject({ live, reserved });
    // The model is as free as before.
    const { engine } = await initialize({ model: mine, config, backend: new DryBackend(cpuMemoryModel()), communicator });
    await engine.dispose();
  });

  it("takes the device's own limit where none is given", async () => {
    class Small extends DryBackend {
      override readonly dry = false as never;
      override memory() {
        return { ...super.memory(), limit: 2 ** 20 };
      }
    }
    const backend = new Small(cpuMemoryModel());
    await expect(initialize({ model: model(), config, backend, communicator: new WorldOfOne() })).rejects.toThrow(
      'its device has 1.00 MiB',
    );
    expect(backend.memory().peak).toBe(0);
  });
});

describe('sizes', () => {
  it('are bytes with or without a unit', () => {
    expect(['80GiB', '80 gib', '1.5KiB', '2e', 1024, '16GB', '7'].map((text) => sizeOf(text))).toEqual([
      80 * 2 ** 30,
      80 * 2 ** 30,
      1536,
      undefined,
      1024,
      16e9,
      7,
    ]);
  });
});

function sizeOf(text: string | number): number | undefined {
  try {
    return parseBytes(text);
  } catch {
    return undefined;
  }
}

import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  EarlyStoppingCallback,
  type EvalDataset,
  getPeftModel,
  loadDataset,
  padCollator,
  type TokenSample,
  type TrainerCallback,
} from '@deepspeed-ts/transformers';
import { type DeepSpeedEngine, Trainer, type TrainerOptions } from 'deepspeed-ts';
import { afterAll, describe, expect, it, vi } from 'vitest';
import { datasetOf, hashOf, rows, tinyModel, withTrainer } from './support.js';

const folder = mkdtempSync(join(tmpdir(), 'single-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
vi.spyOn(process.stdout, 'write').mockImplementation(() => true);

const checkpoints = (name: string) =>
  readdirSync(join(folder, name))
    .filter((entry) => entry.startsWith('checkpoint'))
    .sort();

describe('a step', () => {
  it('has the gradient of the mean over all its labels, however they fall into micro-batches', async () => {
    const samples = rows(6);
    const whole = await withTrainer(
      { trainDataset: datasetOf(samples), args: { perDeviceTrainBatchSize: 6, maxSteps: 1, loggingSteps: 1 } },
      async (trainer) => {
        await trainer.train();
        return trainer.state.logHistory[0]!;
      },
    );
    for (const perDeviceTrainBatchSize of [1, 2, 3]) {
      const args = { perDeviceTrainBatchSize, gradientAccumulationSteps: 6 / perDeviceTrainBatchSize, maxSteps: 1, loggingSteps: 1 };
      await withTrainer({ trainDataset: datasetOf(samples), args }, async (trainer) => {
        await trainer.train();
        const { loss, grad_norm } = trainer.state.logHistory[0]!;
        expect(loss).toBeCloseTo(whole.loss!, 5);
        expect(grad_norm! / whole.grad_norm!).toBeCloseTo(1, 4);
      });
    }
  });

  it('of packed rows is that of rows of their own', async () => {
    const text = ['a b c d', 'e f', 'g h i', 'j', 'k l m n o'].map((line) => ({ text: line }));
    const tokenizer = {
      encode: (line: string) => line.split(' ').map((word) => word.charCodeAt(0) - 90),
      eosTokenId: 1,
      applyChatTemplate: () => '',
    };
    const apart = await loadDataset(text, { tokenizer, maxLength: 12 });
    const packed = await loadDataset(text, { tokenizer, maxLength: 12, pack: true });
    expect(packed.length).toBeLessThan(apart.length);
    const [one, other] = await Promise.all(
      [apart, packed].map((trainDataset) =>
        withTrainer(
          { trainDataset, args: { perDeviceTrainBatchSize: trainDataset.length, maxSteps: 3, loggingSteps: 1 } },
          async (trainer) => {
            await trainer.train();
            return trainer.state.logHistory.slice(0, 3);
          },
        ),
      ),
    );
    for (const [step, { loss, grad_norm }] of one!.entries()) {
      expect(other![step]!.loss! / loss!).toBeCloseTo(1, 5);
      expect(other![step]!.grad_norm! / grad_norm!).toBeCloseTo(1, 4);
    }
  });
});

describe('an evaluation', () => {
  it('weighs every token alike, in batches of any size, from memory or from a stream', async () => {
    const samples = rows(11, 3);
    await withTrainer({ evalDataset: datasetOf(samples) }, async (trainer) => {
      const { eval_loss, eval_perplexity } = await trainer.evaluate();
      const engine = trainer.engine as DeepSpeedEngine;
      let [sum, count] = [0, 0];
      for (const sample of samples) {
        const labels = [...sample.labels!].filter((label) => label !== -100).length;
        sum += labels * (await engine.evalBatch(padCollator()([sample])));
        count += labels;
      }
      expect(eval_loss).toBeCloseTo(sum / count, 5);
      expect(eval_perplexity).toBeCloseTo(Math.exp(sum / count), 3);
      const stream: EvalDataset<TokenSample> = { stream: () => samples };
      expect((await trainer.evaluate(stream)).eval_loss).toBeCloseTo(eval_loss!, 6);
    });
    await withTrainer({ evalDataset: datasetOf(samples), args: { perDeviceEvalBatchSize: 3 } }, async (trainer) => {
      expect((await trainer.evaluate(undefined, { metricKeyPrefix: 'test' })).test_loss).toBeGreaterThan(0);
    });
  });

  it('adds the metrics that are asked for, and drops nothing', async () => {
    const computeMetrics = ({ tokens, loss }: { tokens: number; loss: number }) => ({ bits: loss / Math.LN2, tokens });
    await withTrainer({ model: tinyModel(0.5), evalDataset: datasetOf(rows(5)), computeMetrics }, async (trainer) => {
      const first = await trainer.evaluate();
      expect(first.eval_bits).toBeCloseTo(first.eval_loss! / Math.LN2, 9);
      expect((await trainer.evaluate()).eval_loss).toBe(first.eval_loss);
    });
  });
});

/** Evaluations give these losses, one after another. */
function judged(losses: readonly number[]): Pick<TrainerOptions, 'evalDataset' | 'computeMetrics'> {
  let i = 0;
  return { evalDataset: datasetOf(rows(2)), computeMetrics: () => ({ score: losses[i++]! }) };
}

describe('the best checkpoint', () => {
  const common = {
    evalStrategy: 'steps',
    evalSteps: 1,
    saveStrategy: 'steps',
    saveSteps: 1,
    loadBestModelAtEnd: true,
    metricForBestModel: 'score',
    maxSteps: 5,
  } as const;

  it('is kept and loaded at the end', async () => {
    const hashes: string[] = [];
    const callbacks: TrainerCallback[] = [{ onSave: async () => void hashes.push(await hashOf(current!)) }];
    let current: Trainer | undefined;
    await withTrainer(
      {
        ...judged([3, 1, 2, 5, 4]),
        callbacks,
        args: { ...common, outputDir: join(folder, 'best'), greaterIsBetter: false, saveTotalLimit: 1 },
      },
      async (trainer) => {
        current = trainer;
        await trainer.train();
        expect(trainer.state).toMatchObject({
          bestMetric: 1,
          bestGlobalStep: 2,
          bestModelCheckpoint: join(folder, 'best', 'checkpoint-2'),
        });
        expect(await hashOf(trainer)).toBe(hashes[1]);
      },
    );
    expect(new Set(hashes).size).toBe(5);
    expect(checkpoints('best')).toEqual(['checkpoint-2', 'checkpoint-5']);
  });

  it('alone is saved where only the best is wanted', async () => {
    await withTrainer(
      {
        ...judged([1, 3, 2, 4, 0]),
        args: { ...common, outputDir: join(folder, 'only-best'), saveStrategy: 'best', greaterIsBetter: true },
      },
      async (trainer) => {
        await trainer.train();
        expect(trainer.state.bestGlobalStep).toBe(4);
      },
    );
    expect(checkpoints('only-best')).toEqual(['checkpoint-1', 'checkpoint-2', 'checkpoint-4']);
  });

  it('ends the training when it stays the best for too long', async () => {
    const stopping = new EarlyStoppingCallback({ earlyStoppingPatience: 2, earlyStoppingThreshold: 0.5 });
    await withTrainer(
      {
        ...judged([5, 4, 3.8, 3.7, 3]),
        callbacks: [stopping],
        args: { ...common, outputDir: join(folder, 'early'), greaterIsBetter: false },
      },
      async (trainer) => {
        await trainer.train();
        expect(trainer.state.globalStep).toBe(4);
      },
    );
  });

  it('needs a metric that exists', async () => {
    await withTrainer(
      { ...judged([1]), args: { ...common, outputDir: join(folder, 'none'), metricForBestModel: 'accuracy' } },
      async (trainer) => {
        await expect(trainer.train()).rejects.toThrow(
          "args.metricForBestModel: there is no metric 'eval_accuracy'; there are eval_loss, eval_perplexity, eval_score",
        );
      },
    );
  });
});

describe('callbacks', () => {
  it('see the events of Hugging Face in their order, and steer', async () => {
    const events: string[] = [];
    const names = [
      'onTrainBegin',
      'onEpochBegin',
      'onStepBegin',
      'onStepEnd',
      'onLog',
      'onEvaluate',
      'onSave',
      'onEpochEnd',
      'onTrainEnd',
    ] as const;
    const spy: TrainerCallback = Object.fromEntries(names.map((name) => [name, () => void events.push(name)]));
    const steer: TrainerCallback = {
      onStepEnd(_args, state, control) {
        if (state.globalStep === 1) control.shouldEvaluate = control.shouldSave = control.shouldLog = true;
        if (state.globalStep === 2) control.shouldEpochStop = true;
        if (state.globalStep === 3) control.shouldTrainingStop = true;
      },
    };
    await withTrainer(
      { evalDataset: datasetOf(rows(2)), callbacks: [steer, spy], args: { outputDir: join(folder, 'callbacks'), numTrainEpochs: 3 } },
      async (trainer) => {
        await trainer.train();
        expect(trainer.state).toMatchObject({ globalStep: 3, maxSteps: 36 });
        expect(trainer.state.epoch).toBeCloseTo(1 + 1 / 12, 9);
      },
    );
    const [epoch, step] = [['onEpochBegin'], ['onStepBegin', 'onStepEnd']];
    expect(events).toEqual([
      'onTrainBegin',
      ...epoch,
      ...step,
      'onLog',
      'onLog',
      'onEvaluate',
      'onSave',
      ...step,
      'onEpochEnd',
      ...epoch,
      ...step,
      'onEpochEnd',
      'onLog',
      'onTrainEnd',
    ]);
  });
});

describe('what can not be trained', () => {
  const stream = { *stream() {} };
  it.each([
    ['no training data', { trainDataset: undefined }, 'train: there is no trainDataset'],
    [
      'a stream without an end',
      { trainDataset: stream },
      'args.maxSteps: the training data is a stream, whose length nobody knows; say how many steps to train',
    ],
    ['data that is empty', { trainDataset: datasetOf([]) }, 'the dataset is empty: it has no sample to train on'],
    [
      'nothing to resume from',
      { args: { outputDir: join(folder, 'nowhere'), resumeFromCheckpoint: true } },
      'nowhere has no checkpoint-N folder; train without resumeFromCheckpoint to begin',
    ],
    [
      'a checkpoint that is not there',
      { args: { outputDir: folder, resumeFromCheckpoint: join(folder, 'checkpoint-77') } },
      "has no checkpoint 'checkpoint-77'",
    ],
    [
      'a config that contradicts the arguments',
      { args: { deepspeed: { optimizer: { type: 'AdamW', params: { lr: 1 } }, gradient_clipping: 3 }, learningRate: 2, maxGradNorm: 0.5 } },
      'optimizer.params.lr: the config has 1, the arguments learningRate = 2',
    ],
  ])('%s is refused', async (_, options, message) => {
    const trainer = new Trainer({
      model: tinyModel(),
      trainDataset: datasetOf(rows(8)),
      ...(options as object),
      args: { useCpu: true, disableTqdm: true, saveStrategy: 'no', ...(options as { args?: object }).args },
    });
    await expect(trainer.train()).rejects.toThrow(message);
    await trainer.dispose();
  });

  it('an evaluation without data is refused when the Trainer is made', () => {
    expect(() => new Trainer({ model: tinyModel(), args: { evalStrategy: 'epoch' } })).toThrow(
      "args.evalStrategy is 'epoch', but there is no evalDataset",
    );
  });
});

it('a Trainer decays matrices and no norms or biases', async () => {
  await withTrainer({ args: { weightDecay: 0.3, maxSteps: 1 } }, async (trainer) => {
    await trainer.train();
    const { groups } = (trainer.engine as DeepSpeedEngine).optimizer;
    for (const { names, options } of groups) {
      for (const name of names) expect(options.weightDecay, name).toBe(/bias|ln_/.test(name) ? 0 : 0.3);
    }
  });
});

it('a model that was trained is saved as one that Hugging Face reads, and its tokenizer beside it', async () => {
  const saved: string[] = [];
  const processingClass = { padTokenId: 3, savePretrained: async (path: string) => void saved.push(path) };
  await withTrainer({ processingClass, args: { maxSteps: 1 } }, async (trainer) => {
    await trainer.train();
    await trainer.saveModel(join(folder, 'model'));
  });
  expect(readdirSync(join(folder, 'model')).sort()).toEqual(['config.json', 'model.safetensors']);
  expect(saved).toEqual([join(folder, 'model')]);
});

it('a model with adapters resumes exactly, and is saved as adapters', async () => {
  const adapted = () => getPeftModel(tinyModel(), { r: 2, loraDropout: 0.2 });
  const args = { outputDir: join(folder, 'lora'), numTrainEpochs: 1, saveStrategy: 'steps', saveSteps: 5, loggingSteps: 1 } as const;
  const straight = await withTrainer({ model: adapted(), args }, async (trainer) => {
    await trainer.train();
    return hashOf(trainer);
  });
  const checkpoint = join(folder, 'lora', 'checkpoint-5');
  await withTrainer({ model: adapted(), args: { ...args, resumeFromCheckpoint: checkpoint } }, async (trainer) => {
    await trainer.train();
    expect(await hashOf(trainer)).toBe(straight);
    await trainer.saveModel(join(folder, 'adapter'));
  });
  expect(readdirSync(join(folder, 'adapter')).sort()).toEqual(['adapter_config.json', 'adapter_model.safetensors']);
});

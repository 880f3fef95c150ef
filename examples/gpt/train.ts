/**
 * Trains a GPT on a text file and lets it write: `deepspeed --num_gpus 2 train.ts --data book.txt --deepspeed ds_config.json`.
 * `--help` lists the flags.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { type Backend, type Communicator, connect, DecoderLM, DeepSpeedError, Device, gpt2, initialize, openBackend } from 'deepspeed-ts';
import { type Arguments, parseArguments, usage } from './args.js';
import { validate } from './evaluate.js';
import { Pace, Progress } from './progress.js';
import { memoryPerRank, together } from './ranks.js';
import { sample } from './sample.js';
import { save } from './save.js';
import { type Settings, settingsOf } from './settings.js';
import { type Corpus, readCorpus } from './text.js';
import { randomWindows } from './windows.js';

/** What a run needs, checked. */
interface Plan {
  readonly args: Arguments;
  readonly settings: Settings;
  readonly corpus: Corpus;
}

function prepare(argv: readonly string[], worldSize: number): Plan {
  const args = parseArguments(argv);
  const settings = settingsOf(args, worldSize);
  const { tokens, context, 'val-fraction': validationFraction } = args;
  return { args, settings, corpus: readCorpus(args.data, { tokens, context, validationFraction }) };
}

/**
 * GPT-2's standard deviation, 0.02 at its width of 768, carried over to other widths so that activations begin as large as there. With
 * 0.02 itself a model 128 wide learns far more slowly.
 */
function initStd(dim: number): number {
  return 0.02 * Math.sqrt(768 / dim);
}

async function train({ args, settings, corpus }: Plan, communicator: Communicator, backend: Backend): Promise<void> {
  const { context, seed, layers, heads, dim, dropout } = args;
  const { config, steps, batch, accumulation } = settings;
  const { vocabulary } = corpus;
  const { rank, size } = communicator;
  const model = new DecoderLM(gpt2({ vocabSize: vocabulary.size, layers, heads, dim, context, dropout, initStd: initStd(dim) }));
  const { engine } = await initialize({
    model,
    config,
    seed,
    communicator,
    backend,
    // Only matrices decay: pulling biases and norms to zero does not make a model simpler.
    parameterGroups: (_, { shape }) => (shape.length < 2 ? { weightDecay: 0 } : undefined),
  });
  const { device } = engine;
  const progress = new Progress({ rank, steps, json: args.json });
  const pace = new Pace();
  try {
    progress.say(
      `${corpus.train.length} tokens to learn from and ${corpus.validation.length} to be judged by, ${vocabulary.size} different (ln ${Math.log(vocabulary.size).toFixed(2)}); ` +
        `${size} ${size === 1 ? 'rank' : 'ranks'} at ZeRO stage ${engine.config.zero_optimization.stage}`,
    );
    for (let step = 1; step <= steps; step++) {
      const lr = engine.lr[0]!;
      const microBatches = Array.from({ length: accumulation }, (_, micro) =>
        randomWindows(corpus.train, { seed, step, first: (micro * size + rank) * batch, count: batch, context }),
      );
      const loss = await pace.time(() => engine.trainBatch(microBatches));
      const judged = step % args['eval-interval'] === 0 || step === steps;
      progress.report({
        step,
        loss,
        ...(judged && { val_loss: await validate(engine, corpus.validation, { context, batch }) }),
        grad_norm: engine.globalGradNorm,
        lr,
        tokens_per_s: Math.round((size * accumulation * batch * context) / pace.secondsPerStep),
        eta_s: Math.round((steps - step) * pace.secondsPerStep),
        ...(judged && { memory_mib: await memoryPerRank(communicator, device) }),
      });
    }
    if (args.out !== undefined) {
      await save(engine, args.out, vocabulary);
      progress.say(`Saved to ${args.out}: model.safetensors, config.json, vocabulary.json`);
    }
    if (args.sample > 0) {
      const ids = await sample({ model, prompt: vocabulary.start, count: args.sample, temperature: 0.8, topK: 50, seed });
      progress.say(`\n${vocabulary.decode(ids)}\n`);
    }
  } finally {
    await engine.dispose();
    model.dispose();
  }
}

async function main(argv: readonly string[]): Promise<void> {
  if (argv.includes('--help')) {
    if ((process.env.RANK ?? '0') === '0') process.stdout.write(usage());
    return;
  }
  const communicator = await connect();
  try {
    const backend = openBackend();
    const plan = await together(communicator, new Device(backend), () => prepare(argv, communicator.size));
    await train(plan, communicator, backend);
  } catch (error) {
    fail(error);
    // What went wrong on all ranks is said by all, before the launcher sees the first one go and stops the others.
    await Promise.race([communicator.barrier(), sleep(1000, undefined, { ref: false })]).catch(() => {});
  } finally {
    await communicator.close();
  }
}

function fail(error: unknown): void {
  // Our own errors say what to do; where the code stood helps with the others only.
  const text = error instanceof DeepSpeedError ? error.message : error instanceof Error ? error.stack : String(error);
  process.stderr.write(`train.ts, rank ${process.env.RANK ?? '0'}: ${text}\n`);
  process.exitCode = 1;
}

await main(process.argv.slice(2)).catch(fail);

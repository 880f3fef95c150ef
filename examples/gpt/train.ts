/**
 * Trains a GPT on a text file and lets it write: `deepspeed --num_gpus 2 train.ts --data book.txt --deepspeed ds_config.json`.
 * `--help` lists the flags.
 */
import { type Communicator, connect, DecoderLM, DeepSpeedError, gpt2, initialize } from 'deepspeed-ts';
import { type Arguments, parseArguments, usage } from './args.js';
import { memoryPerRank, validate } from './evaluate.js';
import { Pace, Progress } from './progress.js';
import { sample } from './sample.js';
import { save } from './save.js';
import { settingsOf } from './settings.js';
import { type Corpus, readCorpus } from './text.js';
import { randomWindows } from './windows.js';

async function main(argv: readonly string[]): Promise<void> {
  const args = parseArguments(argv);
  if (args === 'help') {
    process.stdout.write(usage());
    return;
  }
  const { tokens, context, 'val-fraction': validationFraction } = args;
  // Before the ranks meet: a rank that can't read its text says so at once.
  const corpus = readCorpus(args.data, { tokens, context, validationFraction });
  const communicator = await connect();
  try {
    await train(args, corpus, communicator);
  } finally {
    await communicator.close();
  }
}

async function train(args: Arguments, corpus: Corpus, communicator: Communicator): Promise<void> {
  const { context, seed, layers, heads, dim, dropout } = args;
  const { vocabulary } = corpus;
  const { rank, size } = communicator;
  const { config, steps, batch, accumulation } = settingsOf(args, size);
  const model = new DecoderLM(gpt2({ vocabSize: vocabulary.size, layers, heads, dim, context, dropout }));
  const { engine } = await initialize({
    model,
    config,
    seed,
    communicator,
    // Only matrices decay: pulling biases and norms to zero does not make a model simpler.
    parameterGroups: (_, { shape }) => (shape.length < 2 ? { weightDecay: 0 } : undefined),
  });
  const progress = new Progress({ rank, steps, json: args.json });
  const pace = new Pace();
  const tokensPerStep = size * accumulation * batch * context;
  const { stage } = engine.config.zero_optimization;
  progress.say(
    `${corpus.train.length} tokens to learn from, ${corpus.validation.length} for validation, ${vocabulary.size} different (ln ${Math.log(vocabulary.size).toFixed(2)}); ` +
      `${size} ${size === 1 ? 'rank' : 'ranks'}, ZeRO stage ${stage}`,
  );
  try {
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
        tokens_per_s: Math.round(tokensPerStep / pace.secondsPerStep),
        eta_s: Math.round((steps - step) * pace.secondsPerStep),
        ...(judged && { memory_mib: await memoryPerRank(engine) }),
      });
    }
    if (args.out !== undefined) {
      await save(engine, args.out, vocabulary);
      progress.say(`Saved to ${args.out}: model.safetensors, config.json, vocabulary.json`);
    }
    if (args.sample > 0) {
      const ids: number[] = [];
      for await (const id of sample({
        model,
        device: engine.device,
        context,
        prompt: vocabulary.start,
        count: args.sample,
        temperature: 0.8,
        topK: 50,
        seed,
      }))
        ids.push(id);
      progress.say(`\n${vocabulary.decode(ids)}\n`);
    }
  } finally {
    await engine.dispose();
    model.dispose();
  }
}

try {
  await main(process.argv.slice(2));
} catch (error) {
  const rank = process.env.RANK ?? '0';
  // Our own errors say what to do; where the code stood helps with the others only.
  const text = error instanceof DeepSpeedError ? error.message : error instanceof Error ? error.stack : String(error);
  process.stderr.write(`train.ts, rank ${rank}: ${text}\n`);
  process.exitCode = 1;
}

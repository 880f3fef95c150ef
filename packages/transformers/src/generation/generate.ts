import { decode, type GenerativeLM } from './decode.js';
import { type Generation, Sequence } from './sequence.js';
import { type GenerateOptions, optionError, type Settings, settingsOf } from './settings.js';

/** Text, which needs a tokenizer, or tokens. */
export type Prompt = string | readonly number[];

/**
 * What a model writes after each prompt, whatever holds its weights: also in the middle of training, of which it leaves no trace. Prompts of any
 * lengths go through the model together, and none changes what another gives. The result has `numReturnSequences` entries for each prompt, in order.
 *
 * At ZeRO stage 3 every rank calls it, with prompts of its own; they stop together when the last one is finished.
 *
 * @throws DeepSpeedError for options or prompts that make no sense; the reason of `signal` when that stops it
 */
export async function generate(
  model: GenerativeLM,
  input: Prompt | readonly Prompt[],
  options: GenerateOptions = {},
): Promise<Generation[]> {
  const settings = settingsOf(options, model.generationConfig);
  const sequences = sequencesOf(model, isPrompt(input) ? [input] : input, settings);
  if (sequences.length === 0) return [];
  for await (const _ of decode(model, sequences, settings));
  return sequences.map((sequence) => sequence.result());
}

/**
 * What a model writes after a prompt, in pieces as they come: together they are the text that `generate` gives. No piece ends within a character, nor within
 * what may become a stop string. Leaving the loop ends it.
 */
export async function* generateText(
  model: GenerativeLM,
  prompt: Prompt,
  options: GenerateOptions & { readonly tokenizer: NonNullable<GenerateOptions['tokenizer']> },
): AsyncGenerator<string, Generation> {
  const settings = settingsOf({ ...options, numReturnSequences: 1 }, model.generationConfig);
  const [sequence] = sequencesOf(model, [prompt], settings) as [Sequence];
  for await (const _ of decode(model, [sequence], settings)) {
    const piece = sequence.takePiece();
    if (piece !== '') yield piece;
  }
  return sequence.result();
}

function isPrompt(input: Prompt | readonly Prompt[]): input is Prompt {
  return typeof input === 'string' || (input.length > 0 && typeof input[0] === 'number');
}

function sequencesOf(model: GenerativeLM, prompts: readonly Prompt[], settings: Settings): Sequence[] {
  return prompts.flatMap((prompt, index) => {
    const tokens = tokensOf(prompt, index, settings);
    const room = model.maxTokens - tokens.length;
    if (tokens.length === 0) throw optionError(`prompt ${index}`, 'at least one token', 'none');
    if (room < 1)
      throw optionError(`prompt ${index}`, `fewer than ${model.maxTokens} tokens, as many as the model has positions`, `${tokens.length}`);
    const limit = Math.min(settings.maxNewTokens, room);
    return Array.from({ length: settings.sequences }, () => new Sequence({ index, tokens }, limit, settings));
  });
}

function tokensOf(prompt: Prompt, index: number, { tokenizer }: Settings): readonly number[] {
  if (typeof prompt !== 'string') return [...prompt];
  if (!tokenizer) throw optionError('tokenizer', `one, for prompt ${index} is text`, 'none');
  return tokenizer.encode(prompt);
}

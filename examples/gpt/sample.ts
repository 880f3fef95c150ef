import { type DecoderLM, generate } from 'deepspeed-ts';

export interface SampleOptions {
  readonly model: DecoderLM;
  /** What to go on from; at least one token. */
  readonly prompt: readonly number[];
  readonly count: number;
  /** Below 1 the likely becomes likelier; 0 always takes the likeliest. */
  readonly temperature: number;
  /** Choose among this many of the likeliest tokens. */
  readonly topK: number;
  readonly seed: number;
}

/**
 * Lets the model write on. Where its positions end, it goes on from the later half of them: older tokens are forgotten. Under ZeRO-3 every rank must take part,
 * for each holds a part of the weights; all get the same tokens.
 */
export async function sample({ model, prompt, count, seed, ...options }: SampleOptions): Promise<number[]> {
  const { maxPositions } = model.config;
  const ids: number[] = [];
  for (let part = 0; ids.length < count; part++) {
    const before = [...prompt, ...ids].slice(-Math.ceil(maxPositions / 2));
    const [written] = await generate(model, before, { ...options, seed: seed + part, maxNewTokens: count - ids.length, eosTokenId: [] });
    ids.push(...written!.tokens);
  }
  return ids;
}

import { ConfigError } from '@deepspeed-ts/core';
import { connect } from '@deepspeed-ts/kernels-cpu';
import { DecoderLM, gpt2 } from '@deepspeed-ts/transformers';
import { initialize } from 'deepspeed-ts';
import type { RankContext } from '../spawn-world.js';

/** Tries configs that can't be used, one after the other over one communicator: the problems found in each. */
export default async function rank({ args }: RankContext<readonly object[]>): Promise<(readonly string[])[]> {
  const communicator = await connect();
  const found: (readonly string[])[] = [];
  for (const config of args) {
    const model = new DecoderLM(gpt2({ vocabSize: 8, layers: 1, heads: 1, dim: 8, context: 8 }));
    const error: unknown = await initialize({ model, communicator, config }).catch((reason: unknown) => reason);
    if (!(error instanceof ConfigError)) throw error;
    found.push(error.problems);
  }
  await communicator.close();
  return found;
}

import { AutoModelForCausalLM } from '@deepspeed-ts/transformers';
import type { RankProgram } from '../spawn-world.js';

/** One of several ranks that want the same model at the same time. */
const program: RankProgram<{ id: string; cacheDir: string }, string> = async ({ args: { id, cacheDir } }) =>
  (await AutoModelForCausalLM.fromPretrained(id, { cacheDir })).directory!;

export default program;

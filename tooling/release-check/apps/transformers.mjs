import { mkdirSync, writeFileSync } from 'node:fs';
import { AutoModelForCausalLM, AutoTokenizer } from '@deepspeed-ts/transformers';

// A tokenizer of the first letters, and a model of their number.
const vocab = Object.fromEntries([...'abcdefgh'].map((letter, id) => [letter, id]));
const tokenizerJson = { added_tokens: [], normalizer: null, pre_tokenizer: null, post_processor: null, decoder: null };
mkdirSync('first');
writeFileSync('first/tokenizer.json', JSON.stringify({ ...tokenizerJson, model: { type: 'BPE', vocab, merges: [] } }));

const config = { model_type: 'gpt2', vocab_size: 8, n_layer: 1, n_head: 2, n_embd: 8, n_positions: 8 };
const first = await AutoModelForCausalLM.fromConfig(config, { device: 'reference' });
await first.savePretrained('first');
const second = await AutoModelForCausalLM.fromPretrained('first', { device: 'reference' });
await second.savePretrained('second');
const tokenizer = await AutoTokenizer.fromPretrained('second');
const [{ tokens }] = await second.generate([tokenizer.encode('abc')], { maxNewTokens: 3 });
console.log(
  `loaded, saved and loaded: ${second.report.missing.length} missing, ${tokens.length} tokens after ${tokenizer.decode([0, 1, 2])}`,
);
await AutoModelForCausalLM.fromPretrained('owner/model', { localFilesOnly: true, cacheDir: 'cache' }).catch(({ code }) =>
  console.log(code),
);

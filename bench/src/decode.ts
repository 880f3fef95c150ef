import { parseArgs } from 'node:util';
import { Device, type FloatDType, LocalStore, namedParameters, uniforms } from '@deepspeed-ts/core';
import { DecoderLM, decoderConfig, generate } from '@deepspeed-ts/transformers';
import { configOf, type Shape, shapes } from './gpu/shapes.js';
import { report } from './measure.js';

/** Default of each device: what is measured beside peers (docs/performance.md). */
const defaults = {
  cpu: { shape: 'llama-134m', dtype: 'f32,bf16', batch: '1' },
  cuda: { shape: 'llama-1b', dtype: 'bf16', batch: '1,32' },
} as const;

/**
 * `bench decode [--device cuda] [--shape NAME] [--dtype f32,bf16] [--batch 1,32] [--prompt 128] [--new 128] [--threads N] [--graphs] [--sample]`: tokens a
 * second of generation from random weights after random prompts, by `generate` as everybody calls it. Each figure is of the best of three runs; the first
 * token is measured by itself.
 */
export async function benchDecode(args: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      device: { type: 'string', default: 'cpu' },
      shape: { type: 'string' },
      dtype: { type: 'string' },
      batch: { type: 'string' },
      prompt: { type: 'string', default: '128' },
      new: { type: 'string', default: '128' },
      threads: { type: 'string' },
      graphs: { type: 'boolean', default: false },
      sample: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
    },
  });
  if (values.device !== 'cpu' && values.device !== 'cuda') throw new Error(`--device ${values.device}: expected cpu or cuda`);
  const { shape, dtype, batch } = { ...defaults[values.device], ...values };
  if (!(shape in shapes)) throw new Error(`--shape ${shape}: expected one of ${Object.keys(shapes).join(', ')}`);
  const [prompt, count] = [Number(values.prompt), Number(values.new)];
  const device = new Device(await openBackend(values.device, values));
  for (const name of dtype.split(',') as FloatDType[]) {
    const model = modelOf(shapes[shape]!, shape);
    const store = new LocalStore(model, device, { dtype: name, seed: 1 });
    for (const rows of batch.split(',').map(Number)) {
      const prompts = Array.from({ length: rows }, (_, row) => tokens(row, prompt, shapes[shape]!.vocab));
      const options = { eosTokenId: [], ...(values.sample && { temperature: 0.8, topK: 50, topP: 0.95 }) };
      const run = async (maxNewTokens: number) => {
        const start = performance.now();
        await generate(model, prompts, { ...options, maxNewTokens });
        return performance.now() - start;
      };
      const best = async (maxNewTokens: number) => Math.min(await run(maxNewTokens), await run(maxNewTokens), await run(maxNewTokens));
      await run(count);
      const [first, all] = [await best(1), await best(count)];
      const perStep = (all - first) / (count - 1);
      report({
        bench: 'decode',
        device: values.device,
        shape,
        dtype: name,
        batch: rows,
        prompt,
        new: count,
        ...(values.graphs && { graphs: 1 }),
        ...(values.sample && { sample: 1 }),
        tokensPerSecond: (1000 * rows * count) / all,
        decodeTokensPerSecond: (1000 * rows) / perStep,
        prefillTokensPerSecond: (1000 * rows * prompt) / first,
        firstMs: first,
        stepMs: perStep,
        weightGBs: bytesOf(model, name) / perStep / 1e6,
      });
    }
    store.dispose();
    model.dispose();
  }
}

async function openBackend(device: 'cpu' | 'cuda', { threads, graphs }: { threads?: string | undefined; graphs: boolean }) {
  if (device === 'cuda') return (await import('@deepspeed-ts/kernels-cuda')).cudaBackend({ graphs });
  const backend = (await import('@deepspeed-ts/kernels-cpu')).cpuBackend();
  if (threads !== undefined) backend.threads = Number(threads);
  return backend;
}

/** The head of llama-1b is its embedding here, as in the measurements that it stands beside. */
function modelOf(shape: Shape, name: string): DecoderLM {
  const config = configOf(shape);
  return new DecoderLM(name === 'llama-1b' ? decoderConfig({ ...config.huggingFace, tie_word_embeddings: true }) : config);
}

function tokens(row: number, count: number, vocabulary: number): number[] {
  return Array.from(uniforms({ seed: 7, stream: row }, 0, count), (u) => Math.floor(u * vocabulary));
}

/** Of the weights that every token reads. */
function bytesOf(model: DecoderLM, dtype: FloatDType): number {
  const { vocabSize, dim, tieEmbeddings } = model.config;
  const all = [...namedParameters(model).values()].reduce((sum, { numel }) => sum + numel, 0);
  return (all - (tieEmbeddings ? 0 : vocabSize * dim)) * (dtype === 'f32' ? 4 : 2);
}

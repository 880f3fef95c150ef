import { execFileSync } from 'node:child_process';
import { closeSync, mkdirSync, mkdtempSync, openSync, readSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { Device, namedParameters, normals, numelOf, safetensorsHeader, type TensorPlan } from '@deepspeed-ts/core';
import { AutoModelForCausalLM, DecoderLM } from '@deepspeed-ts/transformers';
import { type DeviceName, initialize, openDevice } from 'deepspeed-ts';
import { configOf, shapes } from './gpu/shapes.js';
import { shifted } from './gpu/tokens.js';
import { report } from './measure.js';

const ROUNDS = 5;
const BLOCK = 4 * 2 ** 20;

/**
 * `bench load [--shape llama-0.6b] [--device cpu] [--first-loss]`: loads a model directory of that shape in bf16, made in BENCH_DIRECTORY or the
 * system's temporary folder. Beside it stands what one thread
 * reads of the same file, from its beginning to its end, into memory that is there already: both from the page cache and
 * from the disk. With --first-loss it measures a run instead: from the start of the process to the loss of the first batch.
 */
export async function benchLoad(args: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: args.filter((arg) => arg !== '--json'),
    options: {
      shape: { type: 'string', default: 'llama-0.6b' },
      device: { type: 'string', default: 'cpu' },
      'first-loss': { type: 'boolean', default: false },
      directory: { type: 'string' },
    },
  });
  const directory = values.directory ?? mkdtempSync(join(process.env.BENCH_DIRECTORY ?? tmpdir(), 'bench-load-'));
  try {
    if (values.directory === undefined) writeModel(directory, values.shape);
    if (values['first-loss']) firstLoss(directory, values.shape, values.device);
    else if (values.directory !== undefined) await trainOnce(directory, values.shape, values.device as DeviceName);
    else await rates(directory, values.device as DeviceName);
  } finally {
    if (values.directory === undefined) rmSync(directory, { recursive: true, force: true });
  }
}

async function rates(directory: string, name: DeviceName): Promise<void> {
  const file = join(directory, 'model.safetensors');
  const device = new Device((await openDevice(name)).backend);
  const model = await AutoModelForCausalLM.fromPretrained(directory);
  const bytes = 2 * [...namedParameters(model).values()].reduce((sum, { numel }) => sum + numel, 0);
  const memory = new Uint8Array(bytes).fill(1);
  for (const cache of ['warm', 'cold'] as const) {
    for (const dtype of ['bf16', 'f32'] as const) {
      const [bare, ours]: [number[], number[]] = [[], []];
      for (let i = 0; i < ROUNDS; i++) {
        if (cache === 'cold') forget(file);
        bare.push(bytes / (await timed(() => readAll(file, memory))) / 1e6);
        if (cache === 'cold') forget(file);
        const ms = await timed(async () => {
          await model.load(device, { dtype });
          await device.backend.synchronize();
        });
        ours.push(bytes / ms / 1e6);
        model.dispose();
      }
      const [GBs, bareGBs] = [median(ours), median(bare)];
      report({ bench: 'load', device: name, cache, dtype, GB: bytes / 1e9, GBs, bareGBs, ofBare: GBs / bareGBs });
    }
  }
}

/** Starts a process that trains on one batch. */
function firstLoss(directory: string, shape: string, device: string): void {
  const args = [...process.execArgv, process.argv[1]!, 'load', '--shape', shape, '--device', device, '--directory', directory];
  const start = performance.now();
  execFileSync(process.execPath, [...args, ...(process.argv.includes('--json') ? ['--json'] : [])], { stdio: 'inherit' });
  report({ bench: 'whole run', shape, device, seconds: (performance.now() - start) / 1000 });
}

async function trainOnce(directory: string, shape: string, device: DeviceName): Promise<void> {
  const { vocab, seq } = shapes[shape]!;
  const model = await AutoModelForCausalLM.fromPretrained(directory);
  const { engine } = await initialize({
    model,
    device,
    config: { train_micro_batch_size_per_gpu: 1, bf16: { enabled: true }, optimizer: { type: 'AdamW', params: { lr: 1e-5 } } },
  });
  await engine.device.backend.synchronize();
  const loaded = performance.now() / 1000;
  const tokens = Int32Array.from({ length: seq + 1 }, (_, i) => (i * 7919) % vocab);
  const loss = await engine.trainBatch([shifted(tokens, 1, seq)]);
  report({ bench: 'first loss', shape, device, loadedAfterSeconds: loaded, afterSeconds: performance.now() / 1000, loss });
  await engine.dispose();
  model.dispose();
}

/** Weights that are as good as any: the same normals again and again. */
function writeModel(directory: string, name: string): void {
  const shape = shapes[name];
  if (!shape) throw new Error(`--shape ${name}: expected one of ${Object.keys(shapes).join(', ')}`);
  mkdirSync(directory, { recursive: true });
  const config = configOf(shape);
  writeFileSync(join(directory, 'config.json'), JSON.stringify({ ...config.huggingFace, dtype: 'bfloat16' }));
  const plans = [...namedParameters(new DecoderLM(config))].map(([name, { shape }]): TensorPlan => ({ name, shape, dtype: 'bf16' }));
  const bits = new Uint32Array(Float32Array.from(normals({ seed: 1, stream: 0 }, 0, BLOCK / 2), (z) => 0.02 * z).buffer);
  const block = new Uint8Array(Uint16Array.from(bits, (word) => word >>> 16).buffer);
  const file = openSync(join(directory, 'model.safetensors'), 'w');
  writeSync(file, safetensorsHeader(plans));
  let left = plans.reduce((sum, plan) => sum + 2 * numelOf(plan.shape), 0);
  for (; left > 0; left -= BLOCK) writeSync(file, block, 0, Math.min(BLOCK, left));
  closeSync(file);
}

/** From the beginning to the end, into memory that holds all of it. */
function readAll(path: string, memory: Uint8Array): void {
  const file = openSync(path, 'r');
  for (let at = 0; at < memory.length; ) at += readSync(file, memory, at, Math.min(BLOCK, memory.length - at), null);
  closeSync(file);
}

/** Drops a file from the page cache. */
function forget(path: string): void {
  execFileSync('dd', [`if=${path}`, 'iflag=nocache', 'count=0', 'status=none']);
}

async function timed(body: () => unknown): Promise<number> {
  const start = performance.now();
  await body();
  return performance.now() - start;
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1]!;
}

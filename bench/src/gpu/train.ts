import { fork } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { parseArgs } from 'node:util';
import { uniforms } from '@deepspeed-ts/core';
import { DecoderLM } from '@deepspeed-ts/transformers';
import { type Batch, type DeviceName, initialize } from 'deepspeed-ts';
import { configOf, flopsPerToken, type Shape, shapes } from './shapes.js';
import { shifted } from './tokens.js';

const WARM_UP = 4;
/** Of an H100 or H200, dense bf16: what the MFU is counted against. */
const PEAK_FLOPS = 989e12;

interface Options {
  readonly shape: string;
  readonly batch: number;
  readonly stage: number;
  readonly precision: string;
  readonly checkpoint: boolean;
  readonly world: number;
  readonly steps: number;
  readonly device: DeviceName;
}

/**
 * Training steps through the engine: forward, backward and AdamW with clipping, on random tokens. Prints one JSON line with the median
 * step, whose fields are those of bench/peers/torch_train.py. With `--world` it starts that many processes, one for each GPU.
 */
export async function benchTraining(args: readonly string[]): Promise<void> {
  const options = optionsOf(args);
  if (options.world > 1 && process.env.RANK === undefined) return startRanks(options.world);
  await trainRank(options, shapes[options.shape]!);
}

function optionsOf(args: readonly string[]): Options {
  const { values } = parseArgs({
    args: [...args],
    options: {
      shape: { type: 'string', default: 'gpt2-124m' },
      batch: { type: 'string', default: '32' },
      stage: { type: 'string', default: '0' },
      precision: { type: 'string', default: 'bf16' },
      checkpoint: { type: 'boolean', default: false },
      world: { type: 'string', default: '1' },
      steps: { type: 'string', default: '8' },
      device: { type: 'string', default: 'cuda' },
    },
  });
  const { shape, precision, checkpoint } = values;
  if (!(shape in shapes)) throw new Error(`--shape ${shape}: expected one of ${Object.keys(shapes).join(', ')}`);
  if (!['bf16', 'f32', 'fp8', 'fp8-fast'].includes(precision))
    throw new Error(`--precision ${precision}: expected bf16, f32, fp8 or fp8-fast`);
  const [batch, stage, world, steps] = (['batch', 'stage', 'world', 'steps'] as const).map((name) => {
    const value = Number(values[name]);
    if (!Number.isInteger(value) || value < 0) throw new Error(`--${name} ${values[name]}: expected a whole number`);
    return value;
  }) as [number, number, number, number];
  return { shape, precision, checkpoint, batch, stage, world, steps, device: values.device as DeviceName };
}

async function startRanks(world: number): Promise<void> {
  const port = await freePort();
  const children = Array.from({ length: world }, (_, rank) => {
    const place = { RANK: rank, LOCAL_RANK: rank, WORLD_SIZE: world, LOCAL_WORLD_SIZE: world, MASTER_ADDR: '127.0.0.1', MASTER_PORT: port };
    const words = Object.fromEntries(Object.entries(place).map(([name, value]) => [name, String(value)]));
    return fork(process.argv[1]!, process.argv.slice(2), { env: { ...process.env, ...words } });
  });
  const codes = await Promise.all(
    children.map(async (child) => {
      const [code] = (await once(child, 'exit')) as [number | null];
      // The others would wait for a rank that is gone.
      if (code !== 0) for (const other of children) other.kill();
      return code;
    }),
  );
  if (codes.some((code) => code !== 0)) throw new Error(`ranks ended with codes ${codes.join(', ')}`);
}

async function trainRank(options: Options, shape: Shape): Promise<void> {
  const { batch, stage, precision, checkpoint, steps, device } = options;
  const model = new DecoderLM(configOf(shape));
  model.recompute = checkpoint;
  const { engine } = await initialize({
    model,
    device,
    seed: 1,
    config: {
      train_micro_batch_size_per_gpu: batch,
      gradient_clipping: 1,
      bf16: { enabled: precision !== 'f32' },
      ...(precision.startsWith('fp8') && { fp8: { enabled: true, fast_backward: precision === 'fp8-fast' } }),
      zero_optimization: { stage },
      optimizer: { type: 'AdamW', params: { lr: 3e-4, weight_decay: 0.1 } },
    },
  });
  const { backend } = engine.device;
  const data = [0, 1, 2, 3].map((i) => randomBatch(shape, batch, i, engine.rank));
  const step = async (i: number) => {
    const loss = engine.forward(data[i % data.length]!);
    engine.backward(loss);
    await engine.step();
    return loss;
  };

  const begin = performance.now();
  const first = await (await step(0)).item();
  const firstLossSeconds = performance.now() / 1000;
  for (let i = 1; i < WARM_UP; i++) await step(i);
  await backend.synchronize();
  const warm = performance.now() - begin;

  const times: number[] = [];
  const before = performance.eventLoopUtilization();
  for (let i = 0; i < steps; i++) {
    const start = performance.now();
    await step(i);
    await backend.synchronize();
    times.push(performance.now() - start);
  }
  const { idle, active } = performance.eventLoopUtilization(before);
  const loss = await (await step(steps)).item();

  const { peak, reserved, workspace } = backend.memory();
  const ms = times.sort((a, b) => a - b)[times.length >> 1]!;
  const tokensPerSecond = (batch * shape.seq * 1000) / ms;
  if (engine.rank === 0) {
    const line = {
      shape: options.shape,
      mode: 'deepspeed-ts',
      stage,
      precision,
      world: engine.worldSize,
      batch,
      seq: shape.seq,
      ckpt: checkpoint,
      ms: rounded(ms, 2),
      min_ms: rounded(times[0]!, 2),
      tok_s_gpu: Math.round(tokensPerSecond),
      mfu_989: rounded((tokensPerSecond * flopsPerToken(shape)) / PEAK_FLOPS, 4),
      peak_GiB: rounded((peak + workspace) / 2 ** 30, 2),
      reserved_GiB: rounded((reserved + workspace) / 2 ** 30, 2),
      first_loss: rounded(first, 4),
      loss: rounded(loss, 4),
      jsIdle: rounded(idle / (idle + active), 3),
      first_loss_s: rounded(firstLossSeconds, 1),
      warm_s: rounded(warm / 1000, 1),
    };
    console.log(JSON.stringify(line));
  }
  await engine.dispose();
  model.dispose();
}

/** Random tokens; the labels are the tokens one further. */
function randomBatch({ vocab, seq }: Shape, batch: number, index: number, rank: number): Batch {
  const draws = uniforms({ seed: 1000 * index + rank }, 0, batch * (seq + 1));
  const tokens = Int32Array.from(draws, (u) => Math.floor(u * vocab));
  return shifted(tokens, batch, seq);
}

function rounded(value: number, digits: number): number {
  return Number(value.toFixed(digits));
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, 'close');
  return port;
}

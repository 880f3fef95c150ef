import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import {
  accumulate,
  type Communicator,
  copy,
  type Device,
  empty,
  fill,
  fromHost,
  full,
  launch,
  type Tensor,
  write,
  zeros,
} from '@deepspeed-ts/core';
import { type CollectiveCase, describeCase, expectedOf, inputOf } from './collective-reference.js';
import { failures } from './communicator-failures.js';
import type { RankContext } from './spawn-world.js';

/** What an implementation gives to the contract: a module with this as its default export. */
export interface OpenedRank {
  readonly communicator: Communicator;
  readonly device: Device;
}
export type OpenRank = () => Promise<OpenedRank>;

export interface ScenarioArgs {
  readonly scenarios: readonly Scenario[];
  readonly cases?: readonly CollectiveCase[];
  /** See CommunicatorContractOptions. */
  readonly foreignDescriptors?: boolean;
}

export interface Stage extends OpenedRank {
  readonly context: RankContext<ScenarioArgs>;
}

/** A rank of the communicator contract; the given module's default export opens it. */
export default async function rank(context: RankContext<ScenarioArgs>): Promise<unknown> {
  const open = (await context.given()) as OpenRank;
  const { foreignDescriptors = false } = context.args;
  const before = held(foreignDescriptors);
  const { communicator, device } = await open();
  const results: Record<string, unknown> = {};
  for (const name of context.args.scenarios) results[name] = await scenarios[name]({ communicator, device, context });
  await communicator.close();
  return { results, liveBuffers: device.liveBuffers, leftOver: held(foreignDescriptors).filter((item) => !before.includes(item)) };
}

export const scenarios = {
  /** Descriptions of the cases whose result is not bit for bit the expected one. */
  async cases({ communicator, device, context }: Stage): Promise<string[]> {
    const wrong: string[] = [];
    for (const c of context.args.cases!) {
      const expected = expectedOf(c, communicator.rank, communicator.size).data;
      const actual = await runCase(c, communicator, device);
      const at = expected.findIndex((value, i) => !Object.is(value, actual[i]));
      if (actual.length !== expected.length || at >= 0)
        wrong.push(`${describeCase(c)}: element ${at} is ${actual[at]}, not ${expected[at]}`);
    }
    return wrong;
  },

  /** All-reduce, and reduce-scatter followed by all-gather, of the same input: the bytes of both. */
  async twoWays({ communicator, device }: Stage): Promise<Uint8Array[]> {
    const { rank, size } = communicator;
    const bytes: Uint8Array[] = [];
    for (const dtype of ['f32', 'bf16', 'f16'] as const) {
      const c: CollectiveCase = { kind: 'reduceScatter', dtype, op: 'mean', count: 1003, root: 0, shared: [], inPlace: true, seed: 5 };
      const one = fromHost(device, inputOf(c, rank, size), { shared: true });
      const two = fromHost(device, inputOf(c, rank, size));
      const slice = two.narrow(rank * c.count, c.count);
      communicator.allReduce(one, 'mean').wait();
      communicator.reduceScatter(slice, two, 'mean').wait();
      communicator.allGather(two, slice).wait();
      bytes.push(await raw(one), await raw(two));
      for (const tensor of [one, two, slice]) tensor.dispose();
    }
    return bytes;
  },

  /** A collective sees what was launched before it; what is launched after wait() sees the collective. Nothing is awaited. */
  async order({ communicator, device }: Stage): Promise<number[]> {
    const x = zeros(device, [50_000], 'f32', { shared: true });
    const y = zeros(device, [50_000], 'f32');
    const sums = zeros(device, [20], 'f32');
    for (let step = 0; step < 20; step++) {
      fill(x, communicator.rank + step);
      communicator.allReduce(x).wait();
      launch(copy, [x], [y], {});
      const target = sums.narrow(step, 1);
      const source = y.narrow(49_999, 1);
      launch(accumulate, [source], [target], { alpha: 2 });
      target.dispose();
      source.dispose();
    }
    const { data } = await sums.read();
    for (const tensor of [x, y, sums]) tensor.dispose();
    return [...data];
  },

  /** Compute that does not wait for a collective runs while the collective still lacks a rank. */
  async overlap({ communicator, device }: Stage): Promise<number> {
    const other = await communicator.split(0);
    const x = full(device, [1000], 'f32', 1);
    let computed = 0;
    if (communicator.rank === 0) {
      const work = communicator.allReduce(x);
      const y = full(device, [1], 'f32', 42);
      computed = (await y.read()).data[0]!; // would never come if the stream waited for the collective
      y.dispose();
      await other.barrier();
      work.wait();
      await work.finished();
    } else {
      await other.barrier();
      communicator.allReduce(x).wait();
    }
    const total = (await x.read()).data[0]!;
    x.dispose();
    await other.close();
    return communicator.rank === 0 ? computed * total : 42 * total;
  },

  /** Everybody sends to the next rank before receiving from the previous one, several tensors at once. */
  async ring({ communicator, device }: Stage): Promise<number[][]> {
    const { rank, size } = communicator;
    const next = (rank + 1) % size;
    const previous = (rank + size - 1) % size;
    const sizes = [1, 0, 300_001, 7];
    const out = sizes.map((n, i) => full(device, [n], 'f32', 100 * rank + i));
    const into = sizes.map((n) => zeros(device, [n], 'f32'));
    const works = [...out.map((tensor) => communicator.send(tensor, next)), ...into.map((tensor) => communicator.recv(tensor, previous))];
    for (const work of works) work.wait();
    const got: number[][] = [];
    for (const tensor of into) {
      const { data } = await tensor.read();
      got.push([data[0] ?? -1, data[data.length - 1] ?? -1]);
    }
    for (const tensor of [...out, ...into]) tensor.dispose();
    return got;
  },

  /** Groups by parity, in reverse order of rank; then two groups used in opposite orders on different ranks. */
  async split({ communicator, device }: Stage): Promise<{ rank: number; size: number; sum: number; both: number[] }> {
    const { rank } = communicator;
    const half = await communicator.split(rank % 2, -rank);
    const whole = await communicator.split(7);
    const x = full(device, [10], 'f32', rank);
    half.allReduce(x).wait();
    const sum = (await x.read()).data[0]!;
    const a = full(device, [100_000], 'f32', 1);
    const b = full(device, [100_000], 'f32', 2);
    const calls = [() => communicator.allReduce(a), () => whole.allReduce(b)];
    if (rank % 2 === 1) calls.reverse();
    await Promise.all(calls.map((call) => call().finished()));
    const both = [(await a.read()).data[5]!, (await b.read()).data[5]!];
    for (const tensor of [x, a, b]) tensor.dispose();
    const place = { rank: half.rank, size: half.size, sum, both };
    await half.close();
    await whole.close();
    return place;
  },

  ...failures,
} satisfies Record<string, (stage: Stage) => Promise<unknown>>;

export type Scenario = keyof typeof scenarios;

async function runCase(c: CollectiveCase, communicator: Communicator, device: Device): Promise<Float64Array> {
  const { rank, size } = communicator;
  const options = { shared: c.shared[rank]! };
  const host = inputOf(c, rank, size);
  const tensors: Tensor[] = [];
  const keep = (tensor: Tensor): Tensor => {
    tensors.push(tensor);
    return tensor;
  };
  let output: Tensor;
  if (c.kind === 'allReduce' || c.kind === 'broadcast') {
    output = keep(fromHost(device, host, options));
    (c.kind === 'allReduce' ? communicator.allReduce(output, c.op) : communicator.broadcast(output, c.root)).wait();
  } else if (c.kind === 'reduceScatter') {
    const input = keep(fromHost(device, host, options));
    output = keep(c.inPlace ? input.narrow(rank * c.count, c.count) : empty(device, [c.count], c.dtype));
    communicator.reduceScatter(output, input, c.op).wait();
  } else {
    const n = c.kind === 'allGather' ? size * c.count : host.data.length;
    output = keep(empty(device, [n], c.dtype, options));
    const inPlace = c.inPlace && c.kind === 'allGather';
    const input = keep(inPlace ? output.narrow(rank * c.count, c.count) : empty(device, [host.data.length], c.dtype, options));
    write(input, host);
    (c.kind === 'allGather' ? communicator.allGather(output, input) : communicator.allToAll(output, input)).wait();
  }
  const { data } = await output.read();
  for (const tensor of tensors) tensor.dispose();
  return data;
}

function raw(tensor: Tensor): Promise<Uint8Array> {
  return tensor.device.backend.read(tensor.handle, tensor.byteOffset, tensor.byteLength);
}

/** Sockets, event descriptors, threads of collectives and shared mappings that this process holds: what close() must give back. */
function held(foreignDescriptors: boolean): string[] {
  const read = (path: string, how: (path: string) => string): string => {
    try {
      return how(path);
    } catch {
      return ''; // ended meanwhile
    }
  };
  const descriptors = readdirSync('/proc/self/fd').map((fd) => read(`/proc/self/fd/${fd}`, readlinkSync));
  const threads = readdirSync('/proc/self/task').map((id) => read(`/proc/self/task/${id}/comm`, (path) => readFileSync(path, 'utf8')));
  const maps = readFileSync('/proc/self/maps', 'utf8').split('\n');
  const own = foreignDescriptors ? /deepspeed-ts-link/ : /^socket|eventfd|deepspeed-ts-link/;
  return [
    `${descriptors.filter((target) => own.test(target)).length} sockets and event descriptors`,
    `${threads.filter((name) => name.startsWith('ds-comm')).length} threads`,
    `${maps.filter((line) => line.includes('deepspeed-ts-link')).length} links`,
  ];
}

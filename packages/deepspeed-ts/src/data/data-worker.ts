import { parentPort, workerData } from 'node:worker_threads';
import type { AsyncDataset, HostArray } from '@deepspeed-ts/core';
import { stack } from './collate.js';
import { DataError } from './data-error.js';
import { type Produce, producer } from './produce.js';
import type { WorkerError, WorkerReply, WorkerRequest, WorkerStart } from './worker-protocol.js';

// A thread that runs the user's dataset: reading, tokenising and collating happen here, and the JavaScript of training goes on.

/** What the user's module exports. */
interface DatasetModule {
  readonly default?: AsyncDataset<unknown> | ((args: unknown) => AsyncDataset<unknown> | Promise<AsyncDataset<unknown>>);
  readonly collate?: (samples: readonly unknown[]) => unknown;
}

const say = (reply: WorkerReply, transfer: readonly ArrayBuffer[] = []) => parentPort!.postMessage(reply, transfer);

interface Opened {
  readonly produce: Produce<number, unknown>;
  /** Arrays of batches are nobody else's, and can be handed over without a copy. */
  readonly fresh: boolean;
}

async function open({ module, args }: WorkerStart): Promise<Opened> {
  const { default: exported, collate = stack } = (await import(module)) as DatasetModule;
  const data = typeof exported === 'function' ? await exported(args) : exported;
  if (typeof data?.get !== 'function' || !Number.isInteger(data.length)) {
    throw new DataError(`${module}: expected a default export with length and get(index), or a function that gives one`);
  }
  say({ length: data.length });
  return { produce: producer((index: number) => data.get(index), collate as typeof stack), fresh: collate === stack };
}

async function answer({ id, items }: WorkerRequest, { produce, fresh }: Opened): Promise<void> {
  try {
    const batch = await produce(items);
    say({ id, batch }, fresh ? buffersOf(batch) : []);
  } catch (error) {
    say({ id, error: plain(error) });
  }
}

/** Of what {@link stack} makes: an array with its shape, or a record of these. */
function buffersOf(batch: unknown): ArrayBuffer[] {
  const arrays = ArrayBuffer.isView((batch as HostArray).data) ? [batch as HostArray] : Object.values(batch as Record<string, HostArray>);
  return arrays.map(({ data }) => data.buffer as ArrayBuffer);
}

function plain(error: unknown): WorkerError {
  if (!(error instanceof Error)) return { message: String(error) };
  const { message, stack: trace, cause } = error;
  return { message, stack: cause instanceof Error ? cause.stack : trace, index: error instanceof DataError ? error.index : undefined };
}

const opened = open(workerData as WorkerStart);
opened.catch((error: unknown) => say({ failed: plain(error) }));
parentPort!.on('message', async (request: WorkerRequest) => {
  const data = await opened.catch(() => undefined);
  if (data) await answer(request, data);
});

import { type Communicator, DeepSpeedError, type Device, empty, type Tensor, tensor, unscoped } from '@deepspeed-ts/core';
import { CheckpointError, type CheckpointErrorCode } from './error.js';

/** An error on its way to other ranks. */
export interface Problem {
  readonly code: string;
  readonly message: string;
  readonly path: string;
}

export function problemOf(error: unknown): Problem {
  const { code = 'ERR_CHECKPOINT_WRITE', message, path = '' } = error as Partial<Problem> & Error;
  return { code, message, path };
}

export function errorOf({ code, message, path }: Problem, rank: number): CheckpointError {
  const text = message.startsWith('[rank ') ? message : `[rank ${rank}] ${message}`;
  return new CheckpointError(code as CheckpointErrorCode, text, path);
}

/**
 * Runs `body` on every rank and gives the results of all. When it failed on one, all ranks throw that error: none goes on alone into
 * a collective where nobody will meet it. Results travel as JSON.
 */
export async function agree<T>(
  communicator: Communicator,
  device: Device,
  body: () => Promise<T>,
  toError: (problem: Problem, rank: number) => Error = errorOf,
): Promise<T[]> {
  const mine: { value?: T; problem?: Problem } = await body().then(
    (value) => ({ value }),
    (error: unknown) => {
      // A broken program is no matter for the other ranks' messages.
      if (!(error instanceof DeepSpeedError)) console.error(error);
      return { problem: problemOf(error) };
    },
  );
  const all = (await exchange(communicator, device, mine)) as (typeof mine)[];
  for (const [rank, { problem }] of all.entries()) if (problem) throw toError(problem, rank);
  return all.map(({ value }) => value as T);
}

async function exchange(communicator: Communicator, device: Device, value: unknown): Promise<unknown[]> {
  const bytes = new TextEncoder().encode(JSON.stringify(value));
  const lengths = await gather(communicator, device, () => tensor(device, [bytes.length], 'i32'));
  const longest = Math.max(...new Int32Array(lengths.buffer, lengths.byteOffset, communicator.size));
  const padded = new Uint8Array(longest).fill(0x20);
  padded.set(bytes);
  const all = await gather(communicator, device, () => tensor(device, padded, 'u8'));
  return Array.from({ length: communicator.size }, (_, r) =>
    JSON.parse(new TextDecoder().decode(all.subarray(r * longest, (r + 1) * longest))),
  );
}

async function gather(communicator: Communicator, device: Device, create: () => Tensor): Promise<Uint8Array> {
  const mine = unscoped(create);
  const all = unscoped(() => empty(device, [communicator.size * mine.numel], mine.dtype, { kind: 'communication', shared: true }));
  try {
    communicator.allGather(all, mine, 'agreement').wait();
    // A copy of its own, aligned for any element.
    return (await device.backend.read(all.handle, all.byteOffset, all.byteLength)).slice();
  } finally {
    mine.dispose();
    all.dispose();
  }
}

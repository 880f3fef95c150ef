import { type Communicator, embedding, full, scope, type Tensor, tensor } from '@deepspeed-ts/core';
import openRank from './open-rank.js';

export type Ending = 'leaves' | 'kernelFails' | 'disagreesBlocked';

/** A rank for endings.test.ts: rank 0 ends as `args` says, the others report what they see of it. */
export default async function rank({ rank, args }: { rank: number; args: Ending }): Promise<string> {
  const { communicator, device } = await openRank();
  try {
    await communicator.barrier();
  } catch (error) {
    // A slow rank may hear that rank 0 has failed before it hears that all had met.
    await communicator.close();
    return told(error as Error);
  }
  if (rank === 0 && args === 'leaves') return 'left without close()';
  const x = full(device, [8], 'f32', 1);
  if (args === 'disagreesBlocked') return disagreeBlocked(communicator, x, rank);
  if (rank === 0) {
    const table = full(device, [4, 2], 'f32', 1);
    scope(() => void embedding(table, tensor(device, [99], 'i32')));
    table.dispose();
  }
  communicator.allReduce(x).wait();
  const seen = await x.read().then(() => 'nothing wrong', told);
  x.dispose();
  await communicator.close();
  return seen;
}

const told = ({ name, message }: Error): string => `${name}: ${message}`;

/** The ranks call for different things, and their JavaScript waits for what comes of it. */
async function disagreeBlocked(communicator: Communicator, x: Tensor, rank: number): Promise<string> {
  communicator.allReduce(x, 'sum', `reduce ${rank}`).wait();
  let seen = 'nothing wrong';
  try {
    x.readSync();
  } catch (error) {
    seen = told(error as Error);
  }
  x.dispose();
  await communicator.close();
  return seen;
}

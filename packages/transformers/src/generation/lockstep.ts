import { type Communicator, type Device, empty, unscoped, write } from '@deepspeed-ts/core';

/** What a rank says after each token; the largest of all ranks counts. */
export const Progress = { done: 0, going: 1, aborted: 2 } as const;
export type Progress = (typeof Progress)[keyof typeof Progress];

/**
 * Ranks that gather weights from each other take equally many steps: they go on until all of them are done. Where each has its weights to itself,
 * a rank agrees with itself.
 */
export async function agree(own: Progress, device: Device, communicator: Communicator | undefined): Promise<Progress> {
  if (!communicator || communicator.size === 1) return own;
  const flag = unscoped(() => empty(device, [1], 'f32', { kind: 'communication', shared: true }));
  try {
    write(flag, { shape: [1], dtype: 'f32', data: Float64Array.of(own) });
    communicator.allReduce(flag, 'max', 'generate').wait();
    return (await flag.item()) as Progress;
  } finally {
    flag.dispose();
  }
}

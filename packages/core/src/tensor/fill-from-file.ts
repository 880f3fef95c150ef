import { read } from 'node:fs';
import { promisify } from 'node:util';
import type { Tensor } from './tensor.js';

const readAsync = promisify(read);

/**
 * Fills a tensor with bytes of an open file from `position` on, past JavaScript where the backend can. Not in stream order: what was queued
 * on the tensor must have run. Resolves with the bytes that there were, fewer than the tensor's where the file ends; they are there for
 * whatever is queued from then on.
 */
export async function fillFromFile(target: Tensor, file: number, position: number): Promise<number> {
  const { device, handle, byteOffset, byteLength } = target;
  target.assertAlive();
  if (device.backend.readFile) return device.backend.readFile(handle, byteOffset, byteLength, file, position);
  const bytes = new Uint8Array(byteLength);
  let done = 0;
  while (done < byteLength) {
    const { bytesRead } = await readAsync(file, bytes, done, byteLength - done, position + done);
    if (bytesRead === 0) break;
    done += bytesRead;
  }
  target.assertAlive();
  device.backend.write(handle, byteOffset, bytes.subarray(0, done));
  return done;
}

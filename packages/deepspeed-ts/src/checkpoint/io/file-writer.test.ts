import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { bytesOf, safetensorsHeader, type TensorPlan, uniforms } from '@deepspeed-ts/core';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { CHUNK, Checksum, recordOf } from './chunks.js';
import { FileWriter } from './file-writer.js';
import { FileThreads } from './threads.js';

const directory = mkdtempSync(join(tmpdir(), 'file-writer-'));
const threads = new FileThreads();
afterAll(() => rmSync(directory, { recursive: true, force: true }));
afterEach(() => threads.close());

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  return crc;
});

/** From its definition, as in gzip and PNG. */
function slowCrc32(bytes: Uint8Array): string {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = TABLE[(crc ^ byte) & 0xff]! ^ (crc >>> 8);
  return (~crc >>> 0).toString(16).padStart(8, '0');
}

const vector = (name: string, count: number, dtype: TensorPlan['dtype'] = 'f32'): TensorPlan => ({ name, shape: [count], dtype });

/** A file with random bytes, given to the writer in an order of its own; and what it should be, put together at once. */
async function write(name: string, plans: readonly TensorPlan[], seed = 1) {
  const tensors = plans.map(({ shape, dtype }, i) => {
    const bytes = new Uint8Array(shape[0]! * bytesOf(dtype));
    // Every position is another byte than its neighbours and than the same place in another chunk.
    for (let at = 0; at < bytes.length; at++) bytes[at] = (at * 31 + (at >> 8) * 7 + (at >> 16) * 13 + i + seed) & 255;
    return bytes;
  });
  const expected = Buffer.concat([safetensorsHeader(plans), ...tensors]);
  const path = join(directory, name);
  const writer = new FileWriter(path, plans, threads.runnerFor(expected.length));
  const pieces = writer.pieces.flat();
  const order = [...uniforms({ seed }, 0, pieces.length)].map((u, i) => ({ u, piece: pieces[i]! })).sort((a, b) => a.u - b.u);
  for (const { piece } of order) writer.put(piece, tensors[piece.tensor]!.slice(piece.from, piece.from + piece.count));
  return { path, expected, finish: () => writer.finish() };
}

it('a checksum is the CRC-32 that anybody computes, with all of its digits', () => {
  const checksum = new Checksum();
  checksum.update(Buffer.from('1234'));
  checksum.update(Buffer.from('56789'));
  // The check value of every catalogue of CRCs.
  expect(checksum.digest()).toBe('cbf43926');
  expect(slowCrc32(Buffer.from('123456789'))).toBe('cbf43926');
  expect(recordOf(new Uint8Array(0))).toEqual({ size: 0, crc32: [] });
  for (let i = 0; i < 300; i++) expect(recordOf(Buffer.of(i, i >> 8)).crc32).toEqual([slowCrc32(Buffer.of(i, i >> 8))]);
});

describe('a file that threads write', () => {
  it('is the header and the tensors, whatever order their pieces come in, with a checksum of every chunk', async () => {
    const plans = [
      vector('a', 5 * 2 ** 20),
      vector('odd', 4097, 'u8'),
      vector('b', 4 * 2 ** 20 + 3),
      vector('none', 0),
      vector('half', 77, 'bf16'),
    ];
    const { path, expected, finish } = await write('large', plans);
    expect(expected.length).toBeGreaterThan(2 * CHUNK);
    const delay = monitorEventLoopDelay({ resolution: 1 });
    delay.enable();
    const { size, crc32 } = await finish();
    delay.disable();
    expect(readFileSync(path).equals(expected)).toBe(true);
    expect(size).toBe(expected.length);
    const chunks = [0, 1, 2].map((i) => expected.subarray(i * CHUNK, (i + 1) * CHUNK));
    expect(crc32).toEqual(chunks.map(slowCrc32));
    expect(delay.count).toBeGreaterThan(0);
  });

  it('has no thread, and one checksum, when it is small', async () => {
    const { path, expected, finish } = await write('small', [vector('a', 1000)]);
    expect(await finish()).toEqual({ size: expected.length, crc32: [slowCrc32(expected)] });
    expect(readFileSync(path).equals(expected)).toBe(true);
  });

  it('is refused where a piece was not given, where there is a file already, and where it can not be', async () => {
    const plans = [vector('a', 10)];
    const writer = new FileWriter(join(directory, 'short'), plans, threads.runnerFor(1));
    await expect(writer.finish()).rejects.toThrow(/can't write .*short: not all of it was given/);
    await expect((await write('short', plans)).finish()).rejects.toThrow(/can't write .*short: a part of the path is a file/);
    await expect((await write('no/such/place', plans)).finish()).rejects.toMatchObject({ code: 'ERR_CHECKPOINT_WRITE' });
  });

  it.skipIf(process.platform === 'win32')('is given up at once when its threads are closed, and new work starts new ones', async () => {
    const endless = { kind: 'check', path: '/dev/zero', offset: 0, length: Number.MAX_SAFE_INTEGER } as const;
    const failed = expect(threads.runnerFor(endless.length)(endless)).rejects.toThrow('the thread that does file work has ended');
    await threads.close();
    await failed;
    const { expected, finish } = await write('after', [vector('a', 2 ** 20)]);
    expect((await finish()).size).toBe(expected.length);
  });

  it.skipIf(process.platform !== 'linux')('leaves no thread behind', async () => {
    const count = () => readdirSync('/proc/self/task').length;
    await (await write('first', [vector('a', 2 ** 20)])).finish();
    await threads.close();
    const before = count();
    await (await write('second', [vector('a', 2 ** 20)])).finish();
    expect(count()).toBeGreaterThan(before);
    await threads.close();
    expect(count()).toBeLessThanOrEqual(before);
  });
});

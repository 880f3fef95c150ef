import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DeepSpeedError, type DType, OutOfMemoryError, type View } from '@deepspeed-ts/core';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type CpuBackend, cpuBackend, KernelError } from './index.js';

let cpu: CpuBackend;
let handles: number[] = [];

beforeAll(() => {
  cpu = cpuBackend();
});

afterEach(async () => {
  for (const handle of handles) cpu.free(handle);
  handles = [];
  await cpu.synchronize();
  expect(cpu.memory().live).toBe(0);
});

function buffer(bytes: number, shared = false): number {
  const handle = cpu.allocate(bytes, { shared });
  handles.push(handle);
  return handle;
}

function view(handle: number, length: number, dtype: DType = 'f32'): View {
  return { handle, byteOffset: 0, dtype, shape: [length] };
}

function fill(target: View, value: number): void {
  cpu.launch('fill', [], [target], [value]);
}

async function floats(handle: number, length: number): Promise<number[]> {
  return [...new Float32Array((await cpu.read(handle, 0, length * 4)).buffer)];
}

/** A launch that the kernel refuses: 4 elements copied to 3. */
function failing(handle: number): void {
  cpu.launch('copy', [view(handle, 4)], [view(handle, 3)], []);
}

describe('memory', () => {
  it('counts live bytes as asked for, and the peak since the last reset', () => {
    cpu.resetPeak();
    const first = cpu.allocate(1000);
    const second = cpu.allocate(3, { shared: true });
    expect(cpu.memory()).toMatchObject({ live: 1003, peak: 1003 });
    cpu.free(first);
    expect(cpu.memory()).toMatchObject({ live: 3, peak: 1003 });
    cpu.resetPeak();
    expect(cpu.memory().peak).toBe(3);
    cpu.free(second);
  });

  it('serves a freed block again without asking the system for more', () => {
    cpu.free(cpu.allocate(50_000_000));
    const { reserved } = cpu.memory();
    for (let i = 0; i < 100; i++) cpu.free(cpu.allocate(50_000_000));
    expect(cpu.memory().reserved).toBe(reserved);
    cpu.trim();
    expect(cpu.memory()).toMatchObject({ live: 0, reserved: 0, workspace: 0 });
  });

  it('lets a freed block be reused while queued work still reads it, because that work comes first', async () => {
    const kept = buffer(4 << 20);
    const n = 1 << 20;
    for (let i = 1; i <= 20; i++) {
      const temporary = cpu.allocate(4 << 20);
      fill(view(temporary, n), i);
      cpu.launch('copy', [view(temporary, n)], [view(kept, n)], []);
      cpu.free(temporary);
    }
    const other = buffer(4 << 20);
    fill(view(other, n), -1);
    const bytes = new Float32Array((await cpu.read(kept, 0, 4 << 20)).buffer);
    expect(bytes.every((x) => x === 20)).toBe(true);
  });

  it('refuses more than the machine has with the numbers, and works on', async () => {
    const before = buffer(64);
    const error = catching(() => cpu.allocate(2 ** 50));
    expect(error).toBeInstanceOf(OutOfMemoryError);
    expect(error).toMatchObject({ device: 'cpu', requested: 2 ** 50, live: 64, code: 'ERR_OUT_OF_MEMORY' });
    fill(view(before, 16), 2);
    expect(await floats(before, 2)).toEqual([2, 2]);
    expect(() => cpu.allocate(-1)).toThrow(DeepSpeedError);
  });

  it('knows handles that are dead', async () => {
    const handle = cpu.allocate(64);
    cpu.free(handle);
    const reused = buffer(64);
    expect(reused).not.toBe(handle);
    expect(() => cpu.free(handle)).toThrow(/buffer \d+ is not allocated/);
    expect(() => fill(view(handle, 1), 0)).toThrow(/\[cpu\] fill: buffer \d+ is not allocated/);
    await expect(cpu.read(handle, 0, 4)).rejects.toMatchObject({ code: 'ERR_BAD_HANDLE' });
  });

  it('refuses views and ranges outside a buffer', async () => {
    const handle = buffer(64);
    expect(() => fill(view(handle, 17), 0)).toThrow(/bytes 0 to 68 are not inside buffer \d+ of 64 bytes/);
    expect(() => cpu.write(handle, 60, new Uint8Array(5))).toThrow(/bytes 60 to 65/);
    await expect(cpu.read(handle, -1, 4)).rejects.toMatchObject({ code: 'ERR_BAD_ARGUMENT' });
    expect(() => fill({ handle, byteOffset: 0, dtype: 'f32', shape: [1, 1, 1, 1, 1, 1, 1] }, 0)).toThrow(/more than 6 dimensions/);
  });
});

describe('a file', () => {
  const folder = mkdtempSync(join(tmpdir(), 'cpu-backend-'));
  const path = join(folder, 'bytes');
  const bytes = Uint8Array.from({ length: 1_000_003 }, (_, i) => (i * 31) % 251);
  writeFileSync(path, bytes);
  const file = openSync(path, 'r');
  afterAll(() => {
    closeSync(file);
    rmSync(folder, { recursive: true });
  });

  it('is read into a buffer, parts of it side by side, at any place', async () => {
    const handle = buffer(bytes.length + 5);
    fill(view(handle, bytes.length + 5, 'u8'), 0);
    await cpu.synchronize();
    const parts = [0, 1, 65_537, 700_000, bytes.length];
    const counts = await Promise.all(parts.slice(1).map((end, i) => cpu.readFile(handle, 5 + parts[i]!, end - parts[i]!, file, parts[i]!)));
    expect(counts).toEqual(parts.slice(1).map((end, i) => end - parts[i]!));
    expect(Buffer.from(await cpu.read(handle, 5, bytes.length)).equals(bytes)).toBe(true);
    expect(await cpu.read(handle, 0, 5)).toEqual(new Uint8Array(5));
  });

  it('that ends early says how much there was; what can not be read is an error, as is memory that is not there', async () => {
    const handle = buffer(100);
    expect(await cpu.readFile(handle, 0, 100, file, bytes.length - 40)).toBe(40);
    expect(await cpu.readFile(handle, 0, 100, file, bytes.length + 40)).toBe(0);
    await expect(cpu.readFile(handle, 0, 10, 1 << 20, 0)).rejects.toThrow(/a file can't be read: Bad file descriptor/);
    await expect(cpu.readFile(handle, 90, 11, file, 0)).rejects.toMatchObject({ code: 'ERR_BAD_ARGUMENT' });
    await expect(cpu.readFile(12345, 0, 1, file, 0)).rejects.toMatchObject({ code: 'ERR_BAD_HANDLE' });
  });
});

describe('stream', () => {
  it('runs a thousand launches in order', async () => {
    const [a, b] = [buffer(64), buffer(64)];
    for (let i = 0; i < 1000; i++) {
      fill(view(a, 16), i);
      cpu.launch('copy', [view(a, 16)], [view(b, 16)], []);
    }
    expect(await floats(b, 16)).toEqual(Array(16).fill(999));
  });

  it('answers many outstanding reads, each with what was there at its place in the queue', async () => {
    const handle = buffer(4 << 20);
    const reads: Promise<number[]>[] = [];
    for (let i = 0; i < 200; i++) {
      fill(view(handle, 1 << 20), i);
      reads.push(floats(handle, 3));
    }
    const values = await Promise.all(reads);
    expect(values).toEqual(Array.from({ length: 200 }, (_, i) => [i, i, i]));
  });

  it('copies host bytes at the call, small and large', async () => {
    const handle = buffer(1 << 20);
    for (const length of [4, 40_000, 1 << 20]) {
      fill(view(handle, 1 << 18), -1); // something to queue behind
      const bytes = new Uint8Array(length).fill(7);
      cpu.write(handle, 0, bytes);
      bytes.fill(9);
      const back = await cpu.read(handle, 0, length);
      expect(back.every((x) => x === 7)).toBe(true);
    }
  });

  it('reads synchronously', () => {
    const handle = buffer(64);
    fill(view(handle, 16), 3);
    expect([...new Float32Array(cpu.readSync(handle, 8, 8).buffer)]).toEqual([3, 3]);
  });

  it('gives the same whatever the number of threads', async () => {
    const before = cpu.threads;
    const handle = buffer(4 << 20);
    for (const threads of [1, 3, 2]) {
      cpu.threads = threads;
      expect(cpu.threads).toBe(threads);
      fill(view(handle, 1 << 20), threads);
      const values = new Float32Array((await cpu.read(handle, 0, 4 << 20)).buffer);
      expect(values.every((x) => x === threads)).toBe(true);
    }
    cpu.threads = before;
  });
});

describe('a failed kernel', () => {
  it('is named by the next read, skips what was queued in between, and then the backend works on', async () => {
    const handle = buffer(64);
    fill(view(handle, 4), 1);
    failing(handle);
    fill(view(handle, 4), 2);
    await expect(cpu.read(handle, 0, 16)).rejects.toThrow('[copy] expected an output of dtype code 0 with 4 elements');
    expect(await floats(handle, 4)).toEqual([1, 1, 1, 1]);
    fill(view(handle, 4), 3);
    expect(await floats(handle, 4)).toEqual([3, 3, 3, 3]);
  });

  it('fails every read that was queued before its report', async () => {
    const handle = buffer(64);
    failing(handle);
    const results = await Promise.allSettled([cpu.read(handle, 0, 16), cpu.read(handle, 0, 16), cpu.synchronize()]);
    expect(results.map((r) => r.status)).toEqual(['rejected', 'rejected', 'rejected']);
    await cpu.synchronize();
  });

  it('throws from readSync, as data', () => {
    const handle = buffer(64);
    failing(handle);
    const error = catching(() => cpu.readSync(handle, 0, 16));
    expect(error).toBeInstanceOf(KernelError);
    expect(error).toMatchObject({ code: 'ERR_KERNEL', op: 'copy' });
    cpu.readSync(handle, 0, 16);
  });
});

describe('kernels', () => {
  it('are supported by name and float dtype; integer dtypes are no question', () => {
    expect(cpu.supports('fill', ['f32', 'bf16', 'f16', 'i64'])).toBe(true);
    expect(cpu.supports('no_such_op', [])).toBe(false);
    expect(() => cpu.launch('no_such_op', [], [], [])).toThrow(/no kernel 'no_such_op'/);
  });

  it.each([
    ['f32', 1 / 3, [0xab, 0xaa, 0xaa, 0x3e]],
    ['bf16', 1 / 3, [0xab, 0x3e]],
    ['f16', 1 / 3, [0x55, 0x35]],
    ['i32', -2, [0xfe, 0xff, 0xff, 0xff]],
    ['i64', -2, [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]],
    ['i8', -2, [0xfe]],
    ['u8', 200, [200]],
    ['bool', 5, [1]],
  ] as const)('fill writes %s', async (dtype, value, bytes) => {
    const handle = buffer(37 * bytes.length);
    fill(view(handle, 37, dtype), value);
    expect([...(await cpu.read(handle, 0, 37 * bytes.length))]).toEqual(Array(37).fill(bytes).flat());
  });
});

function catching(f: () => unknown): unknown {
  try {
    f();
  } catch (error) {
    return error;
  }
  throw new Error('expected an error');
}

import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { LocalStore } from '@deepspeed-ts/core';
import { cpuBackend } from '@deepspeed-ts/kernels-cpu';
import { cudaBackend } from '@deepspeed-ts/kernels-cuda';
import { AutoModelForCausalLM } from '@deepspeed-ts/transformers';
import { afterAll, describe, expect, test } from 'vitest';
import { temporaryFolder, tensorsOf, tinyLlama, writeModel } from '../pretrained/directories.js';
import { withDevice } from '../with-device.js';
import { gpus } from './devices.js';

describe.skipIf(gpus() === 0)('on a GPU', () => {
  const folder = mkdtempSync(join(tmpdir(), 'cuda-load-'));
  const models = temporaryFolder();
  afterAll(() => rmSync(folder, { recursive: true }));

  // More than a piece of pinned memory, which is 16 MiB.
  test('a file is read into memory of the device, and of the host beside it, several parts at a time', async () => {
    const cuda = cudaBackend();
    const bytes = Buffer.alloc(50_000_011, 0);
    for (let i = 0; i < bytes.length; i += 7) bytes[i] = i % 251;
    const path = join(folder, 'bytes');
    writeFileSync(path, bytes);
    const file = openSync(path, 'r');
    for (const host of [false, true]) {
      const handle = cuda.allocate(bytes.length + 5, { host });
      await cuda.synchronize();
      const parts = [0, 1, 65_537, 30_000_000, bytes.length];
      const counts = parts.slice(1).map((end, i) => cuda.readFile(handle, 5 + parts[i]!, end - parts[i]!, file, parts[i]!));
      expect(await Promise.all(counts)).toEqual(parts.slice(1).map((end, i) => end - parts[i]!));
      expect(Buffer.from(await cuda.read(handle, 5, bytes.length)).equals(bytes)).toBe(true);
      expect(await cuda.readFile(handle, 0, 100, file, bytes.length - 40)).toBe(40);
      await expect(cuda.readFile(handle, 0, 10, 1 << 20, 0)).rejects.toThrow(/a file can't be read: Bad file descriptor/);
      await expect(cuda.readFile(handle, bytes.length, 6, file, 0)).rejects.toMatchObject({ code: 'ERR_BAD_ARGUMENT' });
      cuda.free(handle);
    }
    closeSync(file);
  });

  test.each([
    ['f32', 'bf16'],
    ['bf16', 'bf16'],
    ['f16', 'f32'],
    ['bf16', 'f16'],
  ] as const)('weights of files get the bits that the CPU gives them: %s in %s', async (stored, dtype) => {
    const config = { ...tinyLlama, vocab_size: 5000, hidden_size: 64 };
    const directory = await writeModel(join(models, `${stored}-${dtype}`), config, tensorsOf(config, stored));
    const [cpu, cuda] = await Promise.all(
      [cpuBackend(), cudaBackend()].map((backend) =>
        withDevice(backend, async (device) => {
          const model = await AutoModelForCausalLM.fromPretrained(directory);
          const store = await LocalStore.load(model, device, { dtype });
          const values = [...store.stateDict()].map(([name, value]) => [name, value.readSync().data] as const);
          store.dispose();
          model.dispose();
          return values;
        }),
      ),
    );
    expect(cuda).toEqual(cpu);
  });
});

import { mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { DeepSpeedError } from '../errors.js';
import { type HostTensor, hostTensor, rounded } from '../tensor/host.js';
import { SafetensorsFile } from './read.js';
import { type TensorPlan, writeSafetensors } from './write.js';

let folder: string;
let path: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'safetensors-'));
  path = join(folder, 'model.safetensors');
});
afterEach(() => rmSync(folder, { recursive: true }));

const tensors: Record<string, HostTensor> = {
  a: hostTensor([2, 3], 'f32', [1, -2.5, 0.1, 3e38, 1e-40, 0]),
  half: hostTensor([3], 'f16', [1, 65504, 0.1]),
  brain: hostTensor([1, 1, 3], 'bf16', [1, 3e38, 0.1]),
  ids: hostTensor([2], 'i64', [-(2 ** 53), 7]),
  count: hostTensor([], 'i32', [-5]),
  bytes: hostTensor([3], 'u8', [0, 128, 255]),
  small: hostTensor([2], 'i8', [-128, 127]),
  mask: hostTensor([2], 'bool', [1, 0]),
  none: hostTensor([0, 4], 'f32'),
};

async function* stream(names: readonly string[]): AsyncGenerator<readonly [string, HostTensor]> {
  for (const name of names) yield [name, tensors[name]!];
}

const planOf = (names: readonly string[]): TensorPlan[] =>
  names.map((name) => ({ name, shape: tensors[name]!.shape, dtype: tensors[name]!.dtype }));
const write = (names = Object.keys(tensors)): Promise<void> => writeSafetensors(path, planOf(names), stream(names));

/** A file with this header and as many bytes of data. */
function forge(header: unknown, dataBytes: number, claimedLength?: number): void {
  const json = Buffer.isBuffer(header) ? header : Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(claimedLength ?? json.length));
  writeFileSync(path, Buffer.concat([length, json, Buffer.alloc(dataBytes)]));
}

function refusal(): DeepSpeedError {
  try {
    new SafetensorsFile(path).close();
  } catch (error) {
    return error as DeepSpeedError;
  }
  throw new Error('the file was accepted');
}

describe('a safetensors file', () => {
  it('gives back what was written, in every dtype', async () => {
    await write();
    using file = new SafetensorsFile(path);
    expect(file.names).toEqual(Object.keys(tensors));
    for (const [name, value] of Object.entries(tensors)) expect(file.tensor(name), name).toEqual(rounded(value));
    expect(file.metadata).toEqual({ format: 'pt' });
  });

  it('is laid out as the format says: length, JSON padded to 8 bytes, data without gaps', async () => {
    await write(['half', 'a']);
    const bytes = readFileSync(path);
    const length = Number(bytes.readBigUInt64LE());
    expect(length % 8).toBe(0);
    expect(JSON.parse(bytes.toString('utf8', 8, 8 + length))).toEqual({
      __metadata__: { format: 'pt' },
      half: { dtype: 'F16', shape: [3], data_offsets: [0, 6] },
      a: { dtype: 'F32', shape: [2, 3], data_offsets: [6, 30] },
    });
    expect(bytes.length).toBe(8 + length + 30);
    expect(bytes.readUInt16LE(8 + length)).toBe(0x3c00);
    expect(bytes.readFloatLE(8 + length + 6 + 4)).toBe(-2.5);
  });

  it('rounds to the dtype of the plan', async () => {
    await writeSafetensors(path, [{ name: 'a', shape: [2, 3], dtype: 'bf16' }], stream(['a']));
    using file = new SafetensorsFile(path);
    expect(file.tensor('a')).toEqual(rounded({ ...tensors.a!, dtype: 'bf16' }));
  });
});

describe('writing', () => {
  it.each([
    ['another tensor comes than planned', ['a', 'half'], ['a', 'brain'], "expected tensor 'half' next, got 'brain'"],
    ['more come', ['a'], ['a', 'half'], "expected 1 tensors, got one more: 'half'"],
    ['fewer come', ['a', 'half'], ['a'], 'expected 2 tensors, got 1'],
  ])('leaves the old file and nothing else when %s', async (_, planned, given, message) => {
    await write(['count']);
    const before = readFileSync(path);
    await expect(writeSafetensors(path, planOf(planned), stream(given))).rejects.toThrow(message);
    expect(readFileSync(path)).toEqual(before);
    expect(readdirSync(folder)).toEqual(['model.safetensors']);
  });

  it('refuses a tensor of another size than planned, which would shift all that follow', async () => {
    const plan = [{ name: 'a', shape: [2, 2], dtype: 'f32' }] as const;
    await expect(writeSafetensors(path, plan, stream(['a']))).rejects.toThrow(
      "expected tensor 'a' of shape [2, 2], got 6 values of shape [2, 3]",
    );
    expect(readdirSync(folder)).toEqual([]);
  });

  it('passes on the error of its source', async () => {
    async function* failing(): AsyncGenerator<readonly [string, HostTensor]> {
      yield ['a', tensors.a!];
      throw new Error('the disk of the other rank is full');
    }
    await expect(writeSafetensors(path, planOf(['a', 'half']), failing())).rejects.toThrow('the disk of the other rank is full');
    expect(readdirSync(folder)).toEqual([]);
  });
});

describe('reading', () => {
  it('refuses a file that was cut anywhere, naming it', async () => {
    await write();
    const whole = readFileSync(path);
    for (let length = 0; length < whole.length; length += length < 16 ? 1 : 13) {
      writeFileSync(path, whole);
      truncateSync(path, length);
      const error = refusal();
      expect(error, `cut to ${length} bytes`).toBeInstanceOf(DeepSpeedError);
      expect(error).toMatchObject({ code: 'ERR_SAFETENSORS', message: expect.stringContaining(path) });
    }
  });

  it.each<[string, unknown, number, RegExp]>([
    ['is not JSON', Buffer.from('{"a": '), 0, /the header is not JSON/],
    ['is not valid UTF-8', Buffer.from([0x7b, 0xff, 0x7d]), 0, /the header is not JSON/],
    [
      'puts a tensor beyond the end',
      { a: { dtype: 'F32', shape: [2], data_offsets: [0, 8] } },
      7,
      /tensor 'a' lies at bytes 0 to 8 of 7: the file is truncated/,
    ],
    ['has a negative range', { a: { dtype: 'F32', shape: [1], data_offsets: [4, 0] } }, 8, /tensor 'a' lies at bytes 4 to 0 of 8/],
    [
      'disagrees with itself',
      { a: { dtype: 'F32', shape: [3], data_offsets: [0, 8] } },
      8,
      /tensor 'a' of F32 \[3\] needs 12 bytes, the header gives 8/,
    ],
    ['has no offsets', { a: { dtype: 'F32', shape: [1] } }, 4, /tensor 'a' lies at bytes -1 to -1 of 4/],
  ])('refuses a header that %s', (_, header, dataBytes, message) => {
    forge(header, dataBytes);
    expect(refusal().message).toMatch(message);
  });

  it('refuses a header longer than the file or than is sane, without allocating it', () => {
    forge({}, 0, 1000);
    expect(refusal().message).toMatch(/expected a header of 1000 bytes, the file has 10: it is truncated or not a safetensors file/);
    forge({}, 0, 2 ** 50);
    expect(refusal().message).toMatch(/expected a header of 1125899906842624 bytes/);
  });

  it('says which tensors there are when one is missing, and which dtype it does not know', async () => {
    forge({ odd: { dtype: 'F8_E4M3', shape: [2], data_offsets: [0, 2] } }, 2);
    using file = new SafetensorsFile(path);
    expect(() => file.tensor('even')).toThrow(/there is no tensor 'even'; there are 1: odd/);
    expect(() => file.tensor('odd')).toThrow(/tensor 'odd' has dtype F8_E4M3, which is not supported/);
  });

  it('passes on that a file does not exist', () => {
    expect(() => new SafetensorsFile(path)).toThrow('ENOENT');
  });
});

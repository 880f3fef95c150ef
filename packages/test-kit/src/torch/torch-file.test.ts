import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { openTorchFile, PickleError, TorchFileError, type TorchTensor } from '@deepspeed-ts/core';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { call, dict, type Py, PyGlobal, pickle, tuple } from './pickle-writer.js';
import { floats, Storage, TorchWriter } from './torch-writer.js';
import { zip } from './zip-writer.js';

let folder: string;
let path: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'torch-'));
  path = join(folder, 'file.pt');
});
afterEach(() => rmSync(folder, { recursive: true }));

const fixture = (name: string) => fileURLToPath(new URL(`./fixtures/${name}`, import.meta.url));
const write = (bytes: Uint8Array) => writeFileSync(path, bytes);

function refusal(): PickleError | TorchFileError {
  try {
    openTorchFile(path).close();
  } catch (error) {
    expect(error instanceof PickleError || error instanceof TorchFileError, String(error)).toBe(true);
    return error as TorchFileError;
  }
  throw new Error('the file was accepted');
}

/** A file of one tensor. */
function tensorFile(storage: Storage, shape: number[], strides: number[], offset: number, options = {}): TorchTensor {
  const writer = new TorchWriter();
  write(writer.archive(writer.tensor(storage, { shape, strides, offset }), options));
  return openTorchFile(path).root as TorchTensor;
}

describe.each(['tensors.pt', 'legacy.pt'])('%s, which PyTorch 2.13 wrote,', (name) => {
  const known = JSON.parse(readFileSync(fixture('tensors.json'), 'utf8')) as Record<string, [shape: number[], values: number[]]>;

  it('has the values that PyTorch reads, whole and element by element', () => {
    using file = openTorchFile(fixture(name));
    file.verify();
    const tensors = file.root as Map<string, TorchTensor>;
    expect(tensors.size).toBeGreaterThanOrEqual(8);
    for (const [key, tensor] of tensors) {
      const [shape, values] = known[key]!;
      expect(tensor.shape, key).toEqual(shape);
      expect([...tensor.values().data], key).toEqual(values);
      expect(
        values.map((_, i) => tensor.values(i, 1).data[0]),
        key,
      ).toEqual(values);
    }
  });

  it('is refused wherever it is cut', () => {
    const whole = readFileSync(fixture(name));
    for (let length = 0; length < whole.length; length += 1 + Math.floor(length / 20)) {
      write(whole.subarray(0, length));
      expect(refusal().message, `cut to ${length} bytes`).toContain(path);
    }
  });
});

describe('a tensor', () => {
  const counted = floats(Array.from({ length: 24 }, (_, i) => i));

  it('may be any view of its storage', () => {
    const permuted = tensorFile(counted, [4, 2, 3], [1, 12, 4], 0);
    const values = [];
    for (let a = 0; a < 4; a++) for (let b = 0; b < 2; b++) for (let c = 0; c < 3; c++) values.push(a + 12 * b + 4 * c);
    expect([...permuted.values().data]).toEqual(values);
    expect([...permuted.values(5, 7).data]).toEqual(values.slice(5, 12));
    expect([...tensorFile(counted, [2, 2], [6, 2], 3).values().data]).toEqual([3, 5, 9, 11]);
    expect([...tensorFile(counted, [3, 2], [0, 1], 7).values().data]).toEqual([7, 8, 7, 8, 7, 8]);
  });

  it.each([
    ['reaches beyond its storage', [5, 5], [5, 1], 0, /reaches to element 24 of a storage of 24/],
    ['begins beyond it', [1], [1], 24, /reaches to element 24/],
    ['would fill the memory with copies of one element', [2 ** 40], [0], 0, /repeats the elements of a storage of 24/],
    ['has a size that overflows', [2 ** 40, 2 ** 40], [0, 0], 0, /repeats the elements/],
    ['has more strides than axes', [2], [1, 1], 0, /expected an offset, a shape and strides/],
    ['has a negative stride', [2], [-1], 1, /expected an offset, a shape and strides/],
  ])('that %s is refused', (_, shape, strides, offset, message) => {
    const writer = new TorchWriter();
    write(writer.archive(writer.tensor(counted, { shape, strides, offset })));
    expect(refusal().message).toMatch(message);
  });

  it('of a machine with the high byte first has the same values', () => {
    const bytes = new Uint8Array(16);
    const view = new DataView(bytes.buffer);
    for (const [i, value] of [1, -2.5, 3e38, 0.1].entries()) view.setFloat32(4 * i, value, false);
    const tensor = tensorFile(new Storage('FloatStorage', 4, bytes), [4], [1], 0, { byteorder: 'big' });
    expect([...tensor.values().data]).toEqual([1, -2.5, 3e38, 0.1].map(Math.fround));
  });

  it('of complex numbers has bytes, and no values', () => {
    const tensor = tensorFile(new Storage('ComplexFloatStorage', 8, new Uint8Array(16).fill(7)), [2], [1], 0);
    expect(tensor.bytes()).toEqual(new Uint8Array(16).fill(7));
    expect(() => tensor.values()).toThrow(/a tensor c64 \[2\] in storage '0' has a dtype that is not supported/);
  });
});

describe('an archive', () => {
  const root = (writer: TorchWriter): Py => dict({ a: writer.tensor(floats([1, 2])), b: writer.tensor(floats([3])) });

  it.each([
    ['as PyTorch pads it', { padding: 50 }],
    ['with 64-bit places', { zip64: true }],
    ['in protocol 4', { protocol: 4 }],
  ])('%s is read', (_, options) => {
    const writer = new TorchWriter();
    write(writer.archive(root(writer), options));
    using file = openTorchFile(path);
    file.verify();
    const tensors = [...(file.root as Map<string, TorchTensor>)].map(([name, tensor]) => [name, ...tensor.values().data]);
    expect(tensors).toEqual([
      ['a', 1, 2],
      ['b', 3],
    ]);
  });

  it('whose bytes have changed since is found by its checksums', () => {
    const writer = new TorchWriter();
    const bytes = writer.archive(root(writer));
    const at = bytes.indexOf(Buffer.from(Float32Array.of(1, 2).buffer));
    bytes[at]! ^= 1;
    write(bytes);
    using file = openTorchFile(path);
    expect(() => file.verify()).toThrow(`${path}: 'archive/data/0' is damaged`);
  });

  it('of which a storage is missing or of another size is refused', () => {
    const writer = new TorchWriter();
    const value = root(writer);
    const storage = (bytes: Uint8Array | undefined) =>
      zip({ 'archive/data.pkl': pickle(value, 2), ...(bytes && { 'archive/data/0': bytes }) });
    write(storage(undefined));
    expect(refusal().message).toMatch(/opcode BINPERSID: the archive has no member 'archive\/data\/0'/);
    write(storage(new Uint8Array(7)));
    expect(refusal().message).toMatch(/storage '0' has 7 bytes, expected 8/);
  });

  it('that is compressed, a program, or something else is refused by name', () => {
    const member = zip({ 'archive/data.pkl': pickle(1, 2) });
    // Method 8 in the directory, which begins with this signature.
    member.writeUInt16LE(8, member.indexOf(Buffer.from('PK\x01\x02')) + 10);
    write(member);
    expect(refusal().message).toMatch(/'archive\/data.pkl' is compressed or encrypted/);
    write(zip({ 'archive/data.pkl': pickle(1, 2), 'archive/constants.pkl': pickle(1, 2) }));
    expect(refusal().message).toMatch(/a TorchScript program/);
    write(zip({ 'readme.txt': Buffer.from('hello') }));
    expect(refusal().message).toMatch(/expected one member <name>\/data.pkl, found 0/);
    write(Buffer.from('{"json": true}'));
    expect(refusal().message).toMatch(/magic number\): byte 0: there is no opcode 0x7b/);
    write(Buffer.alloc(0));
    expect(refusal().message).toMatch(/it is empty/);
  });

  it('that is cut after it was opened is an error that says so', () => {
    const writer = new TorchWriter();
    write(writer.archive(root(writer)));
    using file = openTorchFile(path);
    truncateSync(path, 64);
    expect(() => (file.root as Map<string, TorchTensor>).get('b')!.values()).toThrow(/it has been cut since it was opened/);
  });
});

describe('values that PyTorch and DeepSpeed put around tensors', () => {
  it('sizes, parameters and tensors with attributes are what they hold', () => {
    const writer = new TorchWriter();
    const tensor = writer.tensor(floats([1, 2]));
    const args = [writer.storage(floats([5])), 0, tuple(1), tuple(1), true, call('collections', 'OrderedDict')];
    const value = dict({
      size: call('torch', 'Size', [tuple(2, 3)]),
      parameter: call('torch._utils', '_rebuild_parameter', [tensor, true, call('collections', 'OrderedDict')]),
      attributed: call('torch._tensor', '_rebuild_from_type_v2', [
        new PyGlobal('torch._utils', '_rebuild_tensor_v2'),
        new PyGlobal('torch', 'Tensor'),
        tuple(...args),
        dict({ ds_id: '3' }),
      ]),
    });
    write(writer.archive(value));
    using file = openTorchFile(path);
    const read = file.root as Map<string, unknown>;
    expect(read.get('size')).toEqual([2, 3]);
    expect([...(read.get('parameter') as TorchTensor).values().data]).toEqual([1, 2]);
    expect([...(read.get('attributed') as TorchTensor).values().data]).toEqual([5]);
  });
});

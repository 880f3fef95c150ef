import { ByteCursor } from '../pickle/cursor.js';
import { readPickle } from '../pickle/read.js';
import { describePickled, PickleGlobal, type PickleValue } from '../pickle/values.js';
import { torchConstructors } from './constructors.js';
import { bytesOfStorage, dtypeOfStorage } from './dtypes.js';
import { TorchFileError } from './error.js';
import type { FileSource } from './file-source.js';
import { TorchStorage } from './tensor.js';

/** The first pickle of a file from before PyTorch 1.6 holds this number, the second the version. */
const MAGIC = 0x1950a86a20f9469cfc6cn;
const VERSION = 1001;

/** Reads what PyTorch wrote before it took to zip archives: five pickles, then the storages one after the other. */
export function readLegacy(file: FileSource): PickleValue {
  const cursor = new ByteCursor(file, 0, file.size);
  const next = (what: string, options = {}) =>
    readPickle(cursor, { path: `${file.path} (${what})`, constructors: torchConstructors, ...options });
  const magic = next('magic number');
  if (magic !== MAGIC)
    throw new TorchFileError(file.path, `neither a zip archive nor a file of PyTorch's: it begins with ${describePickled(magic)}`);
  const version = next('version');
  if (version !== VERSION)
    throw new TorchFileError(file.path, `expected version ${VERSION} of the format, got ${describePickled(version)}`);
  const system = next('system');
  const bigEndian = system instanceof Map && system.get('little_endian') === false;

  const starts = new Map<string, number>();
  const storages = new Map<string, TorchStorage>();
  const persistent = (id: PickleValue, fail: (detail: string) => never): PickleValue => {
    const [kind, type, key, , numel, view] = Array.isArray(id) ? (id as readonly PickleValue[]) : [];
    if (kind === 'module') return type ?? null; // a class with its source
    const dtype = type instanceof PickleGlobal ? dtypeOfStorage(type.name) : null;
    if (kind !== 'storage' || dtype === null || typeof key !== 'string' || !Number.isSafeInteger(numel))
      return fail(`expected the id of a storage, got ${describePickled(id)} of ${describePickled(type)}`);
    if (view != null) return fail('views of storages are not supported; save the file again with a newer PyTorch');
    const found = storages.get(key);
    if (found) return found;
    const read = (offset: number, length: number) => file.read(starts.get(key)! + offset, length);
    const storage = new TorchStorage(file.path, key, dtype, bytesOfStorage(dtype, numel as number), bigEndian, read);
    storages.set(key, storage);
    return storage;
  };
  const root = next('object', { persistent });
  const keys = next('storages');
  if (!Array.isArray(keys)) throw new TorchFileError(file.path, `expected a list of storages, got ${describePickled(keys)}`);
  let position = cursor.position;
  for (const key of keys as readonly PickleValue[]) {
    const storage = storages.get(String(key));
    if (!storage) throw new TorchFileError(file.path, `storage ${describePickled(key)} belongs to no tensor`);
    starts.set(storage.key, position + 8);
    position += 8 + storage.byteLength;
  }
  if (position > file.size) throw new TorchFileError(file.path, `${position} bytes are expected, it has ${file.size}: it is truncated`);
  for (const key of storages.keys()) if (!starts.has(key)) throw new TorchFileError(file.path, `storage '${key}' is missing`);
  return root;
}

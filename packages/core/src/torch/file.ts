import { crc32 } from 'node:zlib';
import { ByteCursor } from '../pickle/cursor.js';
import { readPickle } from '../pickle/read.js';
import { describePickled, PickleGlobal, type PickleValue } from '../pickle/values.js';
import { torchConstructors } from './constructors.js';
import { bytesOfStorage, dtypeOfStorage } from './dtypes.js';
import { TorchFileError } from './error.js';
import { FileSource } from './file-source.js';
import { readLegacy } from './legacy.js';
import { TorchStorage } from './tensor.js';
import { ZipArchive, type ZipMember } from './zip.js';

const PICKLE = 'data.pkl';
/** Bytes that are checked at a time. */
const CHUNK = 2 ** 22;

/** A file of `torch.save`, open for reading. */
export class TorchFile {
  /** What was saved; tensors in it are read when asked for, until the file is closed. */
  readonly root: PickleValue;
  readonly #file: FileSource;
  readonly #archive: ZipArchive | undefined;
  #open = true;

  constructor(readonly path: string) {
    this.#file = new FileSource(path);
    try {
      this.#archive = this.#isArchive ? new ZipArchive(this.#file) : undefined;
      this.root = this.#archive ? readArchive(this.#archive) : readLegacy(this.#file);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** Reads the whole file and compares checksums; files from before PyTorch 1.6 have none. @throws TorchFileError naming the member that is damaged */
  verify(): void {
    for (const member of this.#archive?.members.values() ?? []) {
      const start = this.#archive!.startOf(member);
      let sum = 0;
      for (let at = 0; at < member.size; at += CHUNK) sum = crc32(this.#file.read(start + at, Math.min(CHUNK, member.size - at)), sum);
      if (sum !== member.crc32) throw new TorchFileError(this.path, `'${member.name}' is damaged: its CRC-32 is not what was written`);
    }
  }

  close(): void {
    if (this.#open) this.#file.close();
    this.#open = false;
  }

  [Symbol.dispose](): void {
    this.close();
  }

  get #isArchive(): boolean {
    const { size, path } = this.#file;
    if (size === 0) throw new TorchFileError(path, 'it is empty');
    return Buffer.from(this.#file.read(0, Math.min(size, 4))).equals(Buffer.from('PK\x03\x04'));
  }
}

/**
 * Opens a file that PyTorch's `torch.save` wrote: a DeepSpeed checkpoint's `.pt`, Hugging Face's `pytorch_model.bin`. Nothing in it is
 * executed (see `readPickle`), and no tensor is read before it is asked for.
 *
 * @throws TorchFileError, PickleError naming the file, where it is truncated, damaged or of another kind
 */
export function openTorchFile(path: string): TorchFile {
  return new TorchFile(path);
}

function readArchive(archive: ZipArchive): PickleValue {
  const { file, members } = archive;
  const pickles = [...members.keys()].filter((name) => name === PICKLE || (name.endsWith(`/${PICKLE}`) && name.split('/').length === 2));
  const [name] = pickles;
  if (name === undefined || pickles.length > 1)
    throw new TorchFileError(file.path, `expected one member <name>/${PICKLE}, found ${pickles.length}: not a file of torch.save`);
  const prefix = name.slice(0, name.length - PICKLE.length);
  if (members.has(`${prefix}constants.pkl`))
    throw new TorchFileError(file.path, 'a TorchScript program, which would have to be executed; save its state_dict() instead');
  const bigEndian = textOf(archive, members.get(`${prefix}byteorder`)) === 'big';

  const storages = new Map<string, TorchStorage>();
  const persistent = (id: PickleValue, fail: (detail: string) => never): PickleValue => {
    const [kind, type, key, , numel] = Array.isArray(id) ? (id as readonly PickleValue[]) : [];
    if (kind !== 'storage' || !(type instanceof PickleGlobal) || typeof key !== 'string' || !Number.isSafeInteger(numel))
      return fail(`expected the id of a storage, got ${describePickled(id)}`);
    const dtype = dtypeOfStorage(type.name);
    if (dtype === null) return fail(`storages of ${type} are not supported`);
    const found = storages.get(key);
    if (found && found.dtype === dtype) return found;
    const member = members.get(`${prefix}data/${key}`);
    if (!member) return fail(`the archive has no member '${prefix}data/${key}'`);
    const byteLength = bytesOfStorage(dtype, numel as number);
    if (member.size !== byteLength) return fail(`storage '${key}' has ${member.size} bytes, expected ${byteLength}`);
    let start: number | undefined;
    const read = (offset: number, length: number) => {
      start ??= archive.startOf(member);
      return file.read(start + offset, length);
    };
    const storage = new TorchStorage(file.path, key, dtype, byteLength, bigEndian, read);
    storages.set(key, storage);
    return storage;
  };
  const member = members.get(name)!;
  const start = archive.startOf(member);
  const cursor = new ByteCursor(file, start, start + member.size);
  return readPickle(cursor, { path: `${file.path} (${name})`, constructors: torchConstructors, persistent });
}

/** Of a member that holds a word. */
function textOf(archive: ZipArchive, member: ZipMember | undefined): string | undefined {
  return member && Buffer.from(archive.file.read(archive.startOf(member), Math.min(member.size, 16))).toString('latin1');
}

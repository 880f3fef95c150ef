import { TorchFileError } from './error.js';
import type { FileSource } from './file-source.js';

/** A file in an archive. */
export interface ZipMember {
  readonly name: string;
  readonly size: number;
  readonly crc32: number;
  /** Of its local header in the archive. */
  readonly header: number;
  /** Neither compressed nor encrypted. */
  readonly stored: boolean;
}

const END = 0x06054b50;
const END_SIZE = 22;
const END_64_LOCATOR = 0x07064b50;
const END_64 = 0x06064b50;
const ENTRY = 0x02014b50;
const ENTRY_SIZE = 46;
const LOCAL = 0x04034b50;
const LOCAL_SIZE = 30;
const LONGEST_COMMENT = 0xffff;
/** 32 bits that say: look in the extra field of 64. */
const IN_EXTRA = 0xffffffff;
const ZIP64_EXTRA = 1;
/** About a million members. A directory is read at once. */
const MAX_DIRECTORY = 2 ** 27;

/** A zip archive of members that are stored as they are, as `torch.save` writes: its directory is read, the rest stays in the file. */
export class ZipArchive {
  readonly members = new Map<string, ZipMember>();

  constructor(readonly file: FileSource) {
    const { offset, size, count } = this.#findDirectory();
    if (size > MAX_DIRECTORY) throw this.#error(`a directory of ${size} bytes; the limit is ${MAX_DIRECTORY}`);
    this.#readDirectory(file.read(offset, size), count);
  }

  /** Where a member's bytes begin in the file. */
  startOf({ name, header, size, stored }: ZipMember): number {
    if (!stored)
      throw this.#error(`'${name}' is compressed or encrypted; torch.save stores members as they are: packed by another program?`);
    const view = viewOf(this.file.read(header, LOCAL_SIZE));
    if (view.getUint32(0, true) !== LOCAL) throw this.#error(`'${name}' does not begin at byte ${header}: the file is damaged`);
    const start = header + LOCAL_SIZE + view.getUint16(26, true) + view.getUint16(28, true);
    if (start + size > this.file.size)
      throw this.#error(`'${name}' lies at bytes ${start} to ${start + size} of ${this.file.size}: the file is truncated`);
    return start;
  }

  #findDirectory(): { offset: number; size: number; count: number } {
    const { file } = this;
    const length = Math.min(file.size, END_SIZE + LONGEST_COMMENT);
    const view = viewOf(file.read(file.size - length, length));
    let at = length - END_SIZE;
    while (at >= 0 && !(view.getUint32(at, true) === END && at + END_SIZE + view.getUint16(at + 20, true) === length)) at--;
    if (at < 0) throw this.#error('there is no directory at its end: the file is truncated');
    const found = { offset: view.getUint32(at + 16, true), size: view.getUint32(at + 12, true), count: view.getUint16(at + 10, true) };
    const end = file.size - length + at;
    return this.#findDirectory64(end) ?? found;
  }

  /** Archives that are large, or could have become so, have a second end before the first. */
  #findDirectory64(end: number): { offset: number; size: number; count: number } | undefined {
    if (end < 20) return undefined;
    const locator = viewOf(this.file.read(end - 20, 20));
    if (locator.getUint32(0, true) !== END_64_LOCATOR) return undefined;
    const view = viewOf(this.file.read(this.#whole(locator, 8), 56));
    if (view.getUint32(0, true) !== END_64) throw this.#error('its directory is not where it should be: the file is damaged');
    return { count: this.#whole(view, 32), size: this.#whole(view, 40), offset: this.#whole(view, 48) };
  }

  #readDirectory(bytes: Uint8Array, count: number): void {
    const view = viewOf(bytes);
    let at = 0;
    for (let i = 0; i < count; i++) {
      if (at + ENTRY_SIZE > bytes.length || view.getUint32(at, true) !== ENTRY)
        throw this.#error(`entry ${i} of ${count} of its directory is damaged`);
      const [flags, method] = [view.getUint16(at + 8, true), view.getUint16(at + 10, true)];
      const [nameLength, extraLength, commentLength] = [28, 30, 32].map((o) => view.getUint16(at + o, true)) as [number, number, number];
      const next = at + ENTRY_SIZE + nameLength + extraLength + commentLength;
      if (next > bytes.length) throw this.#error(`entry ${i} of ${count} of its directory is damaged`);
      const name = Buffer.from(bytes.buffer, bytes.byteOffset + at + ENTRY_SIZE, nameLength).toString('utf8');
      const extra = at + ENTRY_SIZE + nameLength;
      const fields = [view.getUint32(at + 24, true), view.getUint32(at + 20, true), view.getUint32(at + 42, true)];
      const [size, packed, header] = this.#widen(fields, view, extra, extra + extraLength, name) as [number, number, number];
      const stored = method === 0 && packed === size && (flags & 1) === 0;
      if (this.members.has(name)) throw this.#error(`'${name}' is there twice`);
      this.members.set(name, { name, size, crc32: view.getUint32(at + 16, true), header, stored });
      at = next;
    }
  }

  /** Takes fields that don't fit 32 bits from the extra field, where they stand in this order. */
  #widen(fields: number[], view: DataView, start: number, end: number, name: string): number[] {
    if (!fields.includes(IN_EXTRA)) return fields;
    for (let at = start; at + 4 <= end; ) {
      const [id, length] = [view.getUint16(at, true), view.getUint16(at + 2, true)];
      const wide = fields.filter((field) => field === IN_EXTRA).length;
      if (id === ZIP64_EXTRA && length >= 8 * wide && at + 4 + length <= end) {
        let next = at + 4;
        return fields.map((field) => {
          if (field !== IN_EXTRA) return field;
          next += 8;
          return this.#whole(view, next - 8);
        });
      }
      at += 4 + length;
    }
    throw this.#error(`the directory does not say where '${name}' lies: the file is damaged`);
  }

  #whole(view: DataView, at: number): number {
    const value = Number(view.getBigUint64(at, true));
    if (!Number.isSafeInteger(value)) throw this.#error(`a place of ${value} bytes: the file is damaged`);
    return value;
  }

  #error(detail: string): TorchFileError {
    return new TorchFileError(this.file.path, detail);
  }
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

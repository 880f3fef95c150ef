/** Bytes that are read where they are asked for, such as a file. */
export interface ByteSource {
  /** Gives exactly so many, or throws. */
  read(position: number, length: number): Uint8Array;
}

/** The end came before the value did. */
export class OutOfBytes extends Error {}

const WINDOW = 2 ** 16;

/** Reads a range of a source from front to back, a window at a time; long values are read straight from the source. */
export class ByteCursor {
  #window = new Uint8Array(0);
  /** Where the window begins in the source. */
  #start: number;
  #at = 0;
  readonly #first: number;

  constructor(
    readonly source: ByteSource,
    start: number,
    readonly end: number,
  ) {
    this.#start = start;
    this.#first = start;
  }

  /** Bytes read so far. */
  get offset(): number {
    return this.#start + this.#at - this.#first;
  }

  /** In the source. */
  get position(): number {
    return this.#start + this.#at;
  }

  get left(): number {
    return this.end - this.position;
  }

  /** Valid until the next read. */
  take(length: number): Uint8Array {
    if (length > this.left) throw new OutOfBytes(`${length} bytes are expected, ${this.left} are left`);
    if (length > WINDOW) {
      const bytes = this.source.read(this.position, length);
      this.#move(this.position + length);
      return bytes;
    }
    if (this.#at + length > this.#window.length) this.#fill(length);
    this.#at += length;
    return this.#window.subarray(this.#at - length, this.#at);
  }

  /** Up to a newline, which is passed over. */
  line(longest: number): Uint8Array {
    const parts: Uint8Array[] = [];
    for (let length = 0; ; ) {
      if (this.#at === this.#window.length) this.#fill(1);
      const end = this.#window.indexOf(0x0a, this.#at);
      const part = this.#window.slice(this.#at, end < 0 ? undefined : end);
      parts.push(part);
      length += part.length;
      if (length > longest) throw new OutOfBytes(`a line of more than ${longest} bytes`);
      this.#at = end < 0 ? this.#window.length : end + 1;
      if (end >= 0) return parts.length === 1 ? parts[0]! : new Uint8Array(Buffer.concat(parts));
    }
  }

  #fill(least: number): void {
    const position = this.position;
    const length = Math.min(WINDOW, this.end - position);
    if (length < least) throw new OutOfBytes(`${least === 1 ? 'more' : `${least} bytes`} expected, ${length} are left`);
    this.#window = this.source.read(position, length) as Uint8Array<ArrayBuffer>;
    this.#start = position;
    this.#at = 0;
  }

  #move(position: number): void {
    this.#window = new Uint8Array(0);
    this.#start = position;
    this.#at = 0;
  }
}

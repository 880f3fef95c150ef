import { StringDecoder } from 'node:string_decoder';

/** Longest line held back while waiting for its newline; a longer one is delivered in pieces. */
const MAX_LINE = 1 << 20;

/** Cuts a byte stream into lines of UTF-8 text, whatever the chunk borders. */
export class LineSplitter {
  readonly #decoder = new StringDecoder('utf8');
  #partial = '';

  constructor(private readonly onLine: (line: string) => void) {}

  push(chunk: Buffer): void {
    this.#take(this.#decoder.write(chunk));
  }

  /** Delivers what came after the last newline. */
  end(): void {
    this.#take(this.#decoder.end());
    if (this.#partial !== '') this.onLine(this.#partial);
    this.#partial = '';
  }

  #take(text: string): void {
    const lines = (this.#partial + text).split('\n');
    this.#partial = lines.pop()!;
    for (const line of lines) this.onLine(line.endsWith('\r') ? line.slice(0, -1) : line);
    if (this.#partial.length >= MAX_LINE) {
      this.onLine(this.#partial);
      this.#partial = '';
    }
  }
}

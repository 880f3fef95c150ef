import { appendFile, mkdir, stat } from 'node:fs/promises';
import { dirname } from 'node:path';

/** A file that grows. Bytes are kept while a write is under way and go out together after it. */
export class AppendedFile {
  #waiting: Uint8Array[] = [];
  #writing: Promise<void> | undefined;
  #made = false;

  /**
   * @param failed - hears of a write that did not go through; its bytes are lost
   * @param header - what a file begins with that is new or empty
   */
  constructor(
    readonly path: string,
    readonly failed: (error: unknown) => void,
    readonly header = '',
  ) {}

  append(bytes: Uint8Array): void {
    this.#waiting.push(bytes);
    this.#writing ??= this.#write();
  }

  async flush(): Promise<void> {
    while (this.#writing) await this.#writing;
  }

  async #begin(): Promise<void> {
    await mkdir(dirname(this.path), { recursive: true });
    await appendFile(this.path, '');
    if ((await stat(this.path)).size === 0) await appendFile(this.path, this.header);
  }

  async #write(): Promise<void> {
    try {
      if (!this.#made) await this.#begin();
      this.#made = true;
      while (this.#waiting.length > 0) await appendFile(this.path, Buffer.concat(this.#waiting.splice(0)));
    } catch (error) {
      this.failed(error);
    } finally {
      this.#writing = undefined;
    }
  }
}

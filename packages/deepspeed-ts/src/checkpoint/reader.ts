import { join } from 'node:path';
import { bytesOf, numelOf, SafetensorsFile, type Shape } from '@deepspeed-ts/core';
import { GRADIENT, type StateBytes, type StateKind, type StateSource } from '@deepspeed-ts/zero';
import { CheckpointError } from './error.js';
import { corrupt } from './files.js';
import { parsePartName } from './names.js';

/** Elements `start` to `start + count` of a parameter, as a tensor of a file. */
interface Part {
  readonly file: SafetensorsFile;
  readonly tensor: string;
  readonly start: number;
  readonly count: number;
}

/** A checkpoint's state by kind, parameter and element, whatever files its parts lie in. Only headers are read before `read`. */
export class CheckpointReader implements StateSource {
  /** Shapes of all weights. */
  readonly weights = new Map<string, Shape>();
  /** Their names before {@link rename}. */
  readonly originalNames: string[] = [];
  readonly #files: SafetensorsFile[] = [];
  readonly #parts = new Map<string, Part[]>();
  /** Parameters that are not to be taken from here. */
  readonly #ignored = new Set<string>();

  /** `files` as the manifest lists them; of others than safetensors nothing is read. `rename` gives the model's name for a parameter of the checkpoint. */
  constructor(
    readonly directory: string,
    files: readonly string[],
    private readonly rename: (name: string) => string = (name) => name,
  ) {
    try {
      for (const name of files) if (name.endsWith('.safetensors')) this.#open(name);
    } catch (error) {
      this.close();
      throw error;
    }
    for (const parts of this.#parts.values()) parts.sort((a, b) => a.start - b.start);
  }

  has(kind: StateKind, name: string): boolean {
    return !this.#ignored.has(name) && this.#parts.has(keyOf(kind, name));
  }

  /** Makes as if a parameter were not there. */
  ignore(name: string): void {
    this.#ignored.add(name);
  }

  /** @throws CheckpointError where elements of a parameter of so many are missing, or there twice */
  check(kind: StateKind, name: string, numel: number): void {
    let end = 0;
    for (const { start, count, file } of this.#partsOf(kind, name)) {
      if (start !== end) throw corrupt(file.path, `${kind} of ${name}: expected a part from element ${end}, got one from ${start}`);
      end += count;
    }
    if (end !== numel) throw corrupt(this.directory, `${kind} of ${name}: expected ${numel} elements, got ${end}`);
  }

  async read(kind: StateKind, name: string, start: number, count: number): Promise<StateBytes> {
    const wanted = this.#partsOf(kind, name).filter((part) => part.start < start + count && start < part.start + part.count);
    const pieces = await Promise.all(
      wanted.map(async ({ file, tensor, start: first, count: length }) => {
        const from = Math.max(start, first);
        const end = Math.min(start + count, first + length);
        return { at: from - start, ...(await file.readBytes(tensor, from - first, end - from)) };
      }),
    );
    const { dtype } = pieces[0]!;
    // Nearly always, and then nothing is copied.
    if (pieces.length === 1) return { dtype, bytes: pieces[0]!.bytes };
    const bytes = new Uint8Array(count * bytesOf(dtype));
    for (const piece of pieces) bytes.set(piece.bytes, piece.at * bytesOf(dtype));
    return { dtype, bytes };
  }

  /** Whether there are gradients of an unfinished step. */
  get hasGradients(): boolean {
    return [...this.#parts.keys()].some((key) => key.startsWith(`${GRADIENT}/`));
  }

  close(): void {
    for (const file of this.#files) file.close();
    this.#files.length = 0;
  }

  #open(name: string): void {
    const file = new SafetensorsFile(join(this.directory, name));
    this.#files.push(file);
    const isModel = name.startsWith('model');
    for (const [tensor, { shape }] of file.entries) {
      const part = isModel ? { kind: 'weights', name: tensor, start: 0 } : parsePartName(tensor);
      const parameter = this.rename(part.name);
      if (isModel && this.weights.has(parameter)) {
        const text = `rename: two parameters of ${this.directory} would be ${parameter}, one of them ${tensor}; give each a name of its own`;
        throw new CheckpointError('ERR_CHECKPOINT_ARGUMENT', text, this.directory);
      }
      if (isModel) {
        this.weights.set(parameter, shape);
        this.originalNames.push(tensor);
      }
      this.#add(keyOf(part.kind, parameter), { file, tensor, start: part.start, count: numelOf(shape) });
    }
  }

  #add(key: string, part: Part): void {
    const parts = this.#parts.get(key);
    if (parts) parts.push(part);
    else this.#parts.set(key, [part]);
  }

  #partsOf(kind: StateKind, name: string): readonly Part[] {
    return this.#parts.get(keyOf(kind, name)) ?? [];
  }
}

function keyOf(kind: StateKind, name: string): string {
  return `${kind}/${name}`;
}

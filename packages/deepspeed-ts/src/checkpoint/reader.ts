import { join } from 'node:path';
import { type HostTensor, numelOf, SafetensorsFile, type Shape } from '@deepspeed-ts/core';
import { GRADIENT, type StateKind, type StateSource } from '@deepspeed-ts/zero';
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
  readonly #files: SafetensorsFile[] = [];
  readonly #parts = new Map<string, Part[]>();
  /** Parameters that are not to be taken from here. */
  readonly #ignored = new Set<string>();

  /** `files` as the manifest lists them; of others than safetensors nothing is read. */
  constructor(
    readonly directory: string,
    files: readonly string[],
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

  read(kind: StateKind, name: string, start: number, count: number): HostTensor {
    const data = new Float64Array(count);
    let dtype: HostTensor['dtype'] = 'f32';
    for (const part of this.#partsOf(kind, name)) {
      const from = Math.max(start, part.start);
      const end = Math.min(start + count, part.start + part.count);
      if (from >= end) continue;
      const piece = part.file.slice(part.tensor, from - part.start, end - from);
      dtype = piece.dtype;
      data.set(piece.data, from - start);
    }
    return { shape: [count], dtype, data };
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
      if (isModel) this.weights.set(tensor, shape);
      const { kind, name: parameter, start } = isModel ? { kind: 'weights', name: tensor, start: 0 } : parsePartName(tensor);
      this.#add(keyOf(kind, parameter), { file, tensor, start, count: numelOf(shape) });
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

import { type FileHandle, mkdir, open, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { bytesOf, numelOf, safetensorsHeader, type TensorPlan } from '@deepspeed-ts/core';
import { guarded, syncDirectory } from '../checkpoint/files.js';
import { shardName } from '../checkpoint/names.js';
import { packShards } from '../checkpoint/shards.js';

const INDEX = 'model.safetensors.index.json';
/** Files of weights of an earlier save, which libraries would find beside the new ones. */
const WEIGHTS = /^model(-\d{5}-of-\d{5})?\.safetensors$/;

interface Shard {
  readonly name: string;
  readonly plans: readonly TensorPlan[];
}

/**
 * A Hugging Face directory that is written tensor by tensor: `model.safetensors`, or numbered files and an index where they would be larger
 * than wanted. Files have temporary names until all are whole, so what was there before stays until then.
 */
export class WeightFiles {
  readonly #shards: readonly Shard[];
  readonly #temporary: string[] = [];
  #shard = 0;
  #file: FileHandle | undefined;
  /** Bytes that the open file still wants. */
  #left = 0;

  constructor(
    readonly directory: string,
    readonly plans: readonly TensorPlan[],
    maxShardBytes: number,
  ) {
    const packed = packShards(plans, sizeOf, maxShardBytes);
    this.#shards = packed.map((plans, index) => ({ name: shardName('model', index, packed.length), plans }));
  }

  async begin(): Promise<void> {
    await guarded(this.directory, () => mkdir(this.directory, { recursive: true }));
  }

  /** Appends the bytes of the next tensors, in the order of the plans. */
  async write(bytes: Uint8Array): Promise<void> {
    if (bytes.length === 0) return;
    if (!this.#file) await this.#open();
    await this.#append(bytes);
    this.#left -= bytes.length;
    if (this.#left === 0) await this.#close();
  }

  /** Gives files their names, with `config` beside them, and removes those of an earlier save. */
  async finish(config: Readonly<Record<string, unknown>> | undefined): Promise<void> {
    // What has no elements at all was never begun.
    while (this.#shard < this.#shards.length) {
      await this.#open();
      await this.#close();
    }
    const names = new Set(this.#shards.map(({ name }) => name));
    for (const name of names) await this.#rename(name);
    if (names.size > 1) {
      const weight_map = Object.fromEntries(this.#shards.flatMap(({ name, plans }) => plans.map((plan) => [plan.name, name])));
      const total_size = this.plans.reduce((sum, plan) => sum + sizeOf(plan), 0);
      await this.#writeJson(INDEX, { metadata: { total_size }, weight_map });
    }
    if (config) await this.#writeJson('config.json', config);
    const stale = (await readdir(this.directory)).filter(
      (name) => (WEIGHTS.test(name) && !names.has(name)) || (name === INDEX && names.size === 1),
    );
    for (const name of stale) await rm(join(this.directory, name), { force: true });
    await syncDirectory(this.directory);
  }

  /** Removes what has been written. */
  async abandon(): Promise<void> {
    await this.#file?.close().catch(() => {});
    this.#file = undefined;
    for (const name of this.#temporary) await rm(this.#pathOf(name), { force: true }).catch(() => {});
  }

  async #open(): Promise<void> {
    const { name, plans } = this.#shards[this.#shard]!;
    this.#temporary.push(name);
    this.#left = plans.reduce((sum, plan) => sum + sizeOf(plan), 0);
    await guarded(join(this.directory, name), async () => {
      this.#file = await open(this.#pathOf(name), 'w');
    });
    await this.#append(safetensorsHeader(plans));
  }

  async #append(bytes: Uint8Array): Promise<void> {
    await guarded(this.#pathOf(this.#shards[this.#shard]!.name), async () => {
      for (let done = 0; done < bytes.length; ) done += (await this.#file!.write(bytes, done)).bytesWritten;
    });
  }

  async #close(): Promise<void> {
    await guarded(this.#pathOf(this.#shards[this.#shard]!.name), async () => {
      await this.#file!.sync();
      await this.#file!.close();
    });
    this.#file = undefined;
    this.#shard++;
  }

  async #rename(name: string): Promise<void> {
    await guarded(join(this.directory, name), () => rename(this.#pathOf(name), join(this.directory, name)));
  }

  async #writeJson(name: string, value: unknown): Promise<void> {
    this.#temporary.push(name);
    await guarded(join(this.directory, name), () => writeFile(this.#pathOf(name), `${JSON.stringify(value, null, 2)}\n`));
    await this.#rename(name);
  }

  #pathOf(name: string): string {
    return join(this.directory, `.${name}.${process.pid}.tmp`);
  }
}

function sizeOf({ shape, dtype }: TensorPlan): number {
  return numelOf(shape) * bytesOf(dtype);
}

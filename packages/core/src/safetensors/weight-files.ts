import { copyFile, type FileHandle, mkdir, open, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { bytesOf } from '../dtype.js';
import { numelOf } from '../tensor/tensor.js';
import { configJson } from './config-json.js';
import { packShards, SHARD_BYTES, shardName } from './shards.js';
import { safetensorsHeader, type TensorPlan } from './write.js';

/** A file that goes beside the weights as it is, such as a tokenizer's. */
export interface CompanionFile {
  /** In the directory; may lie in a folder of it. */
  readonly name: string;
  /** Where it is to be copied from. */
  readonly path: string;
}

export interface WeightFilesOptions {
  /** Larger models become several files with an index; default 5e9. */
  readonly maxShardBytes?: number | undefined;
  /** What files of weights begin with, and the config beside them is called; default 'model' and 'config.json'. */
  readonly names?: { readonly weights: 'model' | 'adapter_model'; readonly config: string } | undefined;
  /** Runs an operation on a file; may tell its failure in other words. */
  readonly guarded?: <T>(path: string, body: () => Promise<T>) => Promise<T>;
}

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
  readonly #names: NonNullable<WeightFilesOptions['names']>;
  readonly #guarded: NonNullable<WeightFilesOptions['guarded']>;
  readonly #temporary: string[] = [];
  #shard = 0;
  #file: FileHandle | undefined;
  /** Bytes that the open file still wants. */
  #left = 0;

  constructor(
    readonly directory: string,
    readonly plans: readonly TensorPlan[],
    { maxShardBytes = SHARD_BYTES, names, guarded = (_, body) => body() }: WeightFilesOptions = {},
  ) {
    this.#guarded = guarded;
    this.#names = names ?? { weights: 'model', config: 'config.json' };
    const packed = packShards(plans, sizeOf, maxShardBytes);
    this.#shards = packed.map((plans, index) => ({ name: shardName(this.#names.weights, index, packed.length), plans }));
  }

  async begin(): Promise<void> {
    await this.#guarded(this.directory, () => mkdir(this.directory, { recursive: true }));
  }

  /** Appends the bytes of the next tensors, in the order of the plans. */
  async write(bytes: Uint8Array): Promise<void> {
    if (bytes.length === 0) return;
    if (!this.#file) await this.#open();
    await this.#append(bytes);
    this.#left -= bytes.length;
    if (this.#left === 0) await this.#close();
  }

  /** Gives files their names, with `config` and copies of other files beside them, and removes those of an earlier save. */
  async finish(config: Readonly<Record<string, unknown>> | undefined, companions: readonly CompanionFile[] = []): Promise<void> {
    // What has no elements at all was never begun.
    while (this.#shard < this.#shards.length) {
      await this.#open();
      await this.#close();
    }
    const { weights, config: configName } = this.#names;
    const index = `${weights}.safetensors.index.json`;
    const names = new Set(this.#shards.map(({ name }) => name));
    for (const name of names) await this.#rename(name);
    if (names.size > 1) {
      const weight_map = Object.fromEntries(this.#shards.flatMap(({ name, plans }) => plans.map((plan) => [plan.name, name])));
      const total_size = this.plans.reduce((sum, plan) => sum + sizeOf(plan), 0);
      await this.#writeText(index, `${JSON.stringify({ metadata: { total_size }, weight_map }, null, 2)}\n`);
    }
    if (config) await this.#writeText(configName, configJson(config));
    for (const companion of companions) await this.#copy(companion);
    // Files of weights of an earlier save, which libraries would find beside the new ones.
    const earlier = new RegExp(`^${weights}(-\\d{5}-of-\\d{5})?\\.safetensors$`);
    const stale = (await readdir(this.directory)).filter(
      (name) => (earlier.test(name) && !names.has(name)) || (name === index && names.size === 1),
    );
    for (const name of stale) await rm(join(this.directory, name), { force: true });
    await this.#guarded(this.directory, async () => {
      const directory = await open(this.directory, 'r');
      await directory.sync().finally(() => directory.close());
    });
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
    await this.#guarded(join(this.directory, name), async () => {
      this.#file = await open(this.#pathOf(name), 'w');
    });
    await this.#append(safetensorsHeader(plans));
  }

  async #append(bytes: Uint8Array): Promise<void> {
    await this.#guarded(this.#pathOf(this.#shards[this.#shard]!.name), async () => {
      for (let done = 0; done < bytes.length; ) done += (await this.#file!.write(bytes, done)).bytesWritten;
    });
  }

  async #close(): Promise<void> {
    await this.#guarded(this.#pathOf(this.#shards[this.#shard]!.name), async () => {
      await this.#file!.sync();
      await this.#file!.close();
    });
    this.#file = undefined;
    this.#shard++;
  }

  async #rename(name: string): Promise<void> {
    await this.#guarded(join(this.directory, name), () => rename(this.#pathOf(name), join(this.directory, name)));
  }

  async #writeText(name: string, text: string): Promise<void> {
    this.#temporary.push(name);
    await this.#guarded(join(this.directory, name), () => writeFile(this.#pathOf(name), text));
    await this.#rename(name);
  }

  async #copy({ name, path }: CompanionFile): Promise<void> {
    if (resolve(path) === resolve(this.directory, name)) return;
    this.#temporary.push(name);
    await this.#guarded(join(this.directory, name), async () => {
      await mkdir(dirname(join(this.directory, name)), { recursive: true });
      await copyFile(path, this.#pathOf(name));
    });
    await this.#rename(name);
  }

  #pathOf(name: string): string {
    return join(this.directory, `.${name.replaceAll('/', '~')}.${process.pid}.tmp`);
  }
}

function sizeOf({ shape, dtype }: TensorPlan): number {
  return numelOf(shape) * bytesOf(dtype);
}

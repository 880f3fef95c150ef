import { type CompanionFile, DeepSpeedError, type Device, type FloatDType, LocalStore, type WeightSource } from '@deepspeed-ts/core';
import { DecoderLM } from '../decoder/decoder.js';
import { decoderConfig } from '../families/index.js';
import { generate, type Prompt } from '../generation/generate.js';
import type { Generation } from '../generation/sequence.js';
import type { GenerateOptions } from '../generation/settings.js';
import { companionFiles } from './companions.js';
import type { JsonObject } from './json-file.js';
import type { LoadReport } from './match.js';
import { type SavePretrainedOptions, savePretrained } from './save.js';

export interface PretrainedParts {
  /** Of config.json. */
  readonly raw: JsonObject;
  readonly generationConfig: JsonObject;
  readonly dtype: FloatDType;
  /** Where it came from. */
  readonly directory?: string | undefined;
}

/**
 * A language model of a Hugging Face directory. It holds no memory until it is given to `initialize` or loaded onto a device; its weights
 * are read then, by each rank what it owns.
 */
export class PretrainedModel extends DecoderLM {
  /** Of generation_config.json; of config.json where there is none. */
  readonly generationConfig: JsonObject;
  /** What it was asked to be loaded in: that of the checkpoint by default. `initialize` follows its config instead. */
  readonly dtype: FloatDType;
  /** The directory that it came from; `undefined` for one made of a config. */
  readonly directory: string | undefined;
  /** How the files differ from the model. */
  report: LoadReport = { missing: [], unexpected: [], mismatched: [] };
  #store: LocalStore | undefined;

  constructor({ raw, generationConfig, dtype, directory }: PretrainedParts) {
    super(decoderConfig(raw));
    this.generationConfig = generationConfig;
    this.dtype = dtype;
    this.directory = directory;
  }

  /** What holds its weights, where it was loaded onto a device. */
  get store(): LocalStore | undefined {
    return this.#store;
  }

  /** Reads its weights onto a device, whole. Without weights to read it begins anew. */
  async load(device: Device, options: { dtype?: FloatDType; seed?: number; weights?: WeightSource } = {}): Promise<this> {
    this.#store = await LocalStore.load(this, device, { dtype: this.dtype, ...options });
    return this;
  }

  /** See {@link generate}. */
  generate(input: Prompt | readonly Prompt[], options?: GenerateOptions): Promise<Generation[]> {
    return generate(this, input, options);
  }

  /**
   * Writes a directory that Hugging Face libraries open: config.json, weights as they are on the device, and the tokenizer's and other files of the
   * directory that it came from. What was there before stays until the new files are whole.
   *
   * @throws DeepSpeedError where it has no weights of its own: those of a training are its engine's to save
   */
  async savePretrained(directory: string, options: SavePretrainedOptions = {}): Promise<void> {
    if (!this.#store) {
      const way = 'load it onto a device first, or save what an engine trains with its saveModel()';
      throw new DeepSpeedError('ERR_NO_STORE', `[savePretrained] the model holds no weights: ${way}`);
    }
    await savePretrained(directory, this.#store, this.config.huggingFace, this.directory, options);
  }

  /** Files of the directory that it came from which a saved copy should have too, such as those of its tokenizer. */
  async companionFiles(): Promise<CompanionFile[]> {
    return this.directory === undefined ? [] : companionFiles(this.directory);
  }

  /** Gives back the weights that `load` has put on a device, and tables. */
  override dispose(): void {
    super.dispose();
    this.#store?.dispose();
    this.#store = undefined;
  }
}

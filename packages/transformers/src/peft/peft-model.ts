import {
  type CausalBatch,
  type Child,
  type CompanionFile,
  type Device,
  type FloatDType,
  init,
  Linear,
  LocalStore,
  type LoraAdapter,
  Module,
  namedModules,
  namedParameters,
  Parameter,
  type Tensor,
  type WeightSource,
} from '@deepspeed-ts/core';
import { DecoderLM } from '../decoder/decoder.js';
import type { DecoderCache } from '../generation/cache.js';
import type { GenerativeLM, SequenceSizes } from '../generation/decode.js';
import { generate, type Prompt } from '../generation/generate.js';
import type { Generation } from '../generation/sequence.js';
import type { GenerateOptions } from '../generation/settings.js';
import type { PretrainedModel } from '../pretrained/pretrained-model.js';
import { AdapterFiles, writeAdapter } from './adapter-files.js';
import { adapterOf, type FullLoraConfig, fullConfig, type LoraConfig } from './config.js';
import { configFile } from './config-file.js';
import { PeftError } from './errors.js';
import { Merge } from './merge.js';
import { lastNames, modulesToSave, targetsOf } from './targets.js';

/** A layer of the base model and its adapter. */
export interface AdaptedLayer {
  readonly layer: Linear;
  readonly adapter: LoraAdapter;
}

export interface LoadAdapterOptions {
  /** Whether the adapters can be trained on; default false. */
  readonly isTrainable?: boolean;
}

/**
 * A language model of which only adapters are trained: the base model itself, with an adapter in each chosen layer and all its own
 * parameters frozen, so that they take no gradients and no optimizer state. Parameters keep their names; those of an adapter lie
 * under their layer, `...q_proj.lora_A.weight`.
 */
export class PeftModel<Base extends DecoderLM = DecoderLM> extends Module<[CausalBatch], Tensor> implements GenerativeLM {
  readonly base: Base;
  readonly peftConfig: FullLoraConfig;
  /** By the name of the layer. */
  readonly adapters: ReadonlyMap<string, AdaptedLayer>;
  /** Parameters of modules that are trained whole, by name. */
  readonly trainedWhole: ReadonlyMap<string, Parameter>;
  #merge: Merge | undefined;
  #store: LocalStore | undefined;

  /** Puts adapters into `base`; see {@link getPeftModel}. */
  constructor(base: Base, config: FullLoraConfig, { isTrainable = true }: LoadAdapterOptions = {}) {
    super();
    const targets = targetsOf(base, config);
    const whole = modulesToSave(base, config.modulesToSave);
    if ([...namedModules(base)].some(([, module]) => module instanceof Linear && module.adapter))
      throw new PeftError('ERR_PEFT_STATE', 'the model has adapters already; mergeAndUnload() or unload() takes them away');
    this.base = base;
    this.peftConfig = config;
    if (base.weights) this.weights = base.weights;
    for (const parameter of namedParameters(base).values()) parameter.requiresGrad = false;
    const trainedWhole = new Map<string, Parameter>();
    for (const [path, module] of whole) {
      for (const [name, parameter] of namedParameters(module)) {
        if (parameter.storage) throw quantisedError(`${path}.${name}`, parameter.storage);
        trainedWhole.set(`${path}.${name}`, parameter);
      }
    }
    this.trainedWhole = trainedWhole;
    this.adapters = new Map(
      [...targets].map(([name, layer]) => [name, { layer, adapter: newAdapter(layer, config, name) }] satisfies [string, AdaptedLayer]),
    );
    for (const { layer, adapter } of this.adapters.values()) layer.adapter = adapter;
    for (const parameter of this.#trained().values()) parameter.requiresGrad = isTrainable;
    // A model that is on a device already has its adapters there too.
    localStoreOf(base)?.adopt(base);
  }

  /**
   * The model of a directory that PEFT or `savePretrained` has written, on its base model. Where this is on a device, the adapters are read
   * onto it; else `initialize` or `load` reads them with the rest.
   *
   * @throws PeftError where a file is missing, damaged or for another model
   */
  static async fromPretrained<Base extends DecoderLM>(
    base: Base,
    directory: string,
    options: LoadAdapterOptions = {},
  ): Promise<PeftModel<Base>> {
    const files = await AdapterFiles.open(directory);
    const model = new PeftModel(base, files.config, { isTrainable: false, ...options });
    try {
      const source = files.source(model.#trained(), base.weights);
      const store = localStoreOf(base);
      if (store) await files.readInto(source, model.#trained());
      else model.weights = source;
      return model;
    } catch (error) {
      model.unload();
      throw error;
    }
  }

  override children(): Iterable<readonly [string, Child]> {
    return this.base.children();
  }

  /** Of the base model. */
  get config(): Base['config'] {
    return this.base.config;
  }

  get recompute(): boolean {
    return this.base.recompute;
  }

  set recompute(on: boolean) {
    this.base.recompute = on;
  }

  forward(batch: CausalBatch): Tensor {
    return this.base.forward(batch);
  }

  logits(inputIds: Tensor, positionIds?: Tensor): Tensor {
    return this.base.logits(inputIds, positionIds);
  }

  get maxTokens(): number {
    return this.base.maxTokens;
  }

  get generationConfig(): GenerativeLM['generationConfig'] {
    return (this.base as GenerativeLM).generationConfig;
  }

  createCache(sizes: SequenceSizes): DecoderCache {
    return this.base.createCache(sizes);
  }

  step(inputIds: Tensor, cache: DecoderCache): Tensor {
    return this.base.step(inputIds, cache);
  }

  /** See {@link generate}. */
  generate(input: Prompt | readonly Prompt[], options?: GenerateOptions): Promise<Generation[]> {
    return generate(this, input, options);
  }

  /** Files of the base model's directory that a saved copy should have too, such as those of its tokenizer. */
  async companionFiles(): Promise<CompanionFile[]> {
    return (await (this.base as Partial<Pick<PretrainedModel, 'companionFiles'>>).companionFiles?.()) ?? [];
  }

  /** Reads base model and adapters onto a device, whole. */
  async load(device: Device, options: { dtype?: FloatDType; seed?: number; weights?: WeightSource } = {}): Promise<this> {
    const { dtype = 'f32' } = this.base as { dtype?: FloatDType };
    this.#store = await LocalStore.load(this, device, { dtype, ...options });
    return this;
  }

  /** What is trained, and all there is, in elements. */
  countParameters(): { readonly trainable: number; readonly all: number } {
    const all = [...namedParameters(this).values()];
    const count = (parameters: readonly Parameter[]) => parameters.reduce((sum, { numel }) => sum + numel, 0);
    return { trainable: count(all.filter(({ requiresGrad }) => requiresGrad)), all: count(all) };
  }

  /**
   * Writes adapter_model.safetensors and adapter_config.json, as PEFT does: adapters and modules that are trained whole, nothing of the base.
   *
   * @throws PeftError while an engine holds the model: its `saveModel` writes the same directory then
   */
  async savePretrained(directory: string): Promise<void> {
    const parameters = this.savedParameters();
    for (const { store } of parameters.values()) {
      if (!(store instanceof LocalStore))
        throw new PeftError(
          'ERR_PEFT_STATE',
          'savePretrained: the model is held by an engine; engine.saveModel(directory) writes its adapters',
        );
    }
    await writeAdapter(directory, parameters, this.savedConfig());
  }

  /** What is saved, under the names that PEFT gives it. */
  savedParameters(): Map<string, Parameter> {
    return new Map([...this.#trained()].map(([name, parameter]) => [`base_model.model.${name}`, parameter]));
  }

  /** adapter_config.json. */
  savedConfig() {
    const names = [...this.adapters.keys()];
    const { targetModules } = this.peftConfig;
    const directory = (this.base as { directory?: string }).directory;
    return configFile(this.peftConfig, {
      targetModules:
        targetModules instanceof RegExp ? targetModules.source : targetModules === 'all-linear' ? lastNames(names) : targetModules,
      fanInFanOut: [...this.adapters.values()].some(({ layer }) => layer.layout === 'in_out'),
      baseModel: directory,
    });
  }

  /** Whether the adapters are part of the weights now. */
  get isMerged(): boolean {
    return this.#merge !== undefined;
  }

  /**
   * Adds the adapters to the weights, which then cost nothing beside them. The weights as they were are kept on the host for `unmerge`.
   *
   * @throws PeftError where the model is not on a device of its own, or its weights are quantised
   */
  async merge(): Promise<void> {
    if (this.#merge) return;
    this.#merge = await Merge.into(this.adapters, { keep: true });
  }

  /** Takes the adapters out of the weights again, which get the bits that they had. */
  unmerge(): void {
    this.#merge?.undo();
    this.#merge = undefined;
  }

  /** Adds the adapters to the weights for good, and gives the base model without them. */
  async mergeAndUnload(): Promise<Base> {
    if (!this.#merge) await Merge.into(this.adapters, { keep: false });
    this.#merge = undefined;
    return this.unload();
  }

  /** Takes the adapters away, and gives the base model as it was. Merged ones stay. Its parameters stay frozen. */
  unload(): Base {
    for (const { layer } of this.adapters.values()) layer.adapter = undefined;
    localStoreOf(this.base)?.adopt(this.base);
    return this.base;
  }

  /** Gives back tables, and the weights that `load` has put on a device. */
  override dispose(): void {
    this.base.dispose();
    this.#store?.dispose();
    this.#store = undefined;
  }

  #trained(): Map<string, Parameter> {
    const adapters = [...this.adapters].flatMap(([name, { adapter }]) => [
      [`${name}.lora_A.weight`, adapter.a] as const,
      [`${name}.lora_B.weight`, adapter.b] as const,
    ]);
    return new Map([...adapters, ...this.trainedWhole]);
  }
}

/**
 * Puts a low-rank adapter (Hu et al., arXiv:2106.09685) into each chosen layer of a model and freezes everything else. The model is changed
 * in place; it may be on a device already, or be given to `initialize` afterwards.
 *
 * @throws PeftError where the config is wrong or matches nothing
 */
export function getPeftModel<Base extends DecoderLM>(model: Base, config: LoraConfig = {}): PeftModel<Base> {
  return new PeftModel(model, fullConfig(config));
}

function quantisedError(name: string, format: string): PeftError {
  const text = `modulesToSave: ${name} is kept as ${format} codes, which can't be trained`;
  return new PeftError('ERR_PEFT_CONFIG', `${text}; name no layer of a block there, or load the model without quantization`);
}

function newAdapter(layer: Linear, config: FullLoraConfig, name: string): LoraAdapter {
  const { rank, scale } = adapterOf(config, name);
  const bound = 1 / Math.sqrt(layer.inputs);
  const begin = config.initLoraWeights === 'gaussian' ? init.normal(1 / rank) : init.uniform(-bound, bound);
  return {
    a: new Parameter([rank, layer.inputs], begin),
    b: new Parameter([layer.outputs, rank], init.constant(0)),
    scale,
    dropout: config.loraDropout,
  };
}

/** The decoder that a model is, or puts adapters on. */
export function decoderOf(model: Module): DecoderLM | undefined {
  if (model instanceof PeftModel) return model.base;
  return model instanceof DecoderLM ? model : undefined;
}

/** The store of a model that is whole on a device; `undefined` where none has it yet. @throws PeftError while an engine has it */
function localStoreOf(model: Module): LocalStore | undefined {
  const [first] = namedParameters(model).values();
  if (!first?.isStored) return undefined;
  if (first.store instanceof LocalStore) return first.store;
  throw new PeftError('ERR_PEFT_STATE', 'an engine holds the model; adapters come first, then initialize({ model })');
}

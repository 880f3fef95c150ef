import type { FloatDType } from '../dtype.js';
import { DeepSpeedError } from '../errors.js';
import type { GradientTarget } from '../ops/define-op.js';
import { empty } from '../tensor/create.js';
import type { Device } from '../tensor/device.js';
import type { Tensor } from '../tensor/tensor.js';
import { initialise } from './init.js';
import { type Module, namedParameters } from './module.js';
import type { Parameter, ParameterStore } from './parameter.js';
import { Quantized, storageOf, WorkingValues } from './quantized.js';
import { readWeights } from './read-weights.js';
import type { WeightSource } from './weight-source.js';

export interface LocalStoreOptions {
  /** Dtype of weights; default f32. */
  readonly dtype?: FloatDType;
  /** Dtype of gradients; default f32. */
  readonly gradientDtype?: FloatDType;
  readonly seed?: number;
  /** Parameters that this has begin unset; {@link LocalStore.load} fills them. */
  readonly weights?: WeightSource | undefined;
}

/**
 * The plain store: every weight whole, in a buffer of its own, with its gradient beside it. What is to be kept as codes is, and has a value
 * while it is used. For inference, tests and small tools.
 */
export class LocalStore implements ParameterStore {
  readonly dtype: FloatDType;
  readonly #gradientDtype: FloatDType;
  readonly #values = new Map<Parameter, Tensor>();
  readonly #quantized = new Map<Parameter, Quantized>();
  readonly #working = new WorkingValues();
  readonly #gradients = new Map<Parameter, Tensor>();
  readonly #attached = new Set<Parameter>();
  readonly #seed: number;
  #names: ReadonlyMap<string, Parameter> = new Map();

  constructor(
    model: Module,
    readonly device: Device,
    { dtype = 'f32', gradientDtype = 'f32', seed = 0, weights }: LocalStoreOptions = {},
  ) {
    this.dtype = dtype;
    this.#gradientDtype = gradientDtype;
    this.#seed = seed;
    try {
      this.adopt(model, weights);
    } catch (error) {
      this.dispose();
      throw error;
    }
  }

  /** Takes what parameters the model has got since, such as those of adapters, and lets go of those that it has no more. */
  adopt(model: Module, weights?: WeightSource): void {
    this.#names = namedParameters(model);
    const present = new Set(this.#names.values());
    for (const parameter of [...this.#attached]) if (!present.has(parameter)) this.#drop(parameter);
    for (const [name, parameter] of this.#names) {
      if (this.#attached.has(parameter)) continue;
      const format = storageOf(name, parameter);
      parameter.attach(this);
      this.#attached.add(parameter);
      const begin = (target: Tensor, start: number) => initialise(parameter.init, { seed: this.#seed, name }, target, start);
      if (format) {
        const codes = Quantized.empty(this.device, format, parameter.numel, { kind: 'parameters' });
        this.#quantized.set(parameter, codes);
        if (!weights?.has(name)) codes.setBy(begin);
        continue;
      }
      const values = empty(this.device, parameter.shape, this.dtype, { kind: 'parameters' }).keep();
      this.#values.set(parameter, values);
      if (!weights?.has(name)) begin(values, 0);
    }
  }

  /** A store whose weights come from a source, by default the model's; what it lacks is initialised. @throws what the source throws */
  static async load(model: Module, device: Device, options: LocalStoreOptions = {}): Promise<LocalStore> {
    const { weights = model.weights } = options;
    const store = new LocalStore(model, device, { ...options, weights });
    if (!weights) return store;
    try {
      const known = [...store.#names].filter(([name]) => weights.has(name));
      await readWeights(
        weights,
        known.map(([name, parameter]) => ({ name, start: 0, target: (store.#values.get(parameter) ?? store.#quantized.get(parameter))! })),
      );
      return store;
    } catch (error) {
      store.dispose();
      throw error;
    } finally {
      weights.close();
    }
  }

  use(parameter: Parameter): Tensor {
    const codes = this.#quantized.get(parameter);
    return codes ? this.#working.use(parameter, () => codes.values(parameter.shape, this.dtype)) : this.#values.get(parameter)!;
  }

  done(parameter: Parameter): void {
    this.#working.done(parameter);
  }

  gradientTarget(parameter: Parameter): GradientTarget {
    const present = this.#gradients.get(parameter);
    if (present) return { tensor: present, accumulate: 1 };
    const tensor = empty(this.device, parameter.shape, this.#gradientDtype, { kind: 'gradients' }).keep();
    this.#gradients.set(parameter, tensor);
    return { tensor, accumulate: 0 };
  }

  onGradient(): void {}

  /** The gradient accumulated since the last `zeroGrad`, if any. The tensor stays the store's. */
  gradientOf(name: string): Tensor | undefined {
    const parameter = this.#names.get(name);
    return parameter && this.#gradients.get(parameter);
  }

  zeroGrad(): void {
    for (const gradient of this.#gradients.values()) gradient.dispose();
    this.#gradients.clear();
  }

  /** Weights by name. The tensors stay the store's. @throws DeepSpeedError where one is kept as codes, and so is not what it was */
  stateDict(): Map<string, Tensor> {
    return new Map(
      [...this.#names].map(([name, parameter]) => {
        const value = this.#values.get(parameter);
        if (value) return [name, value];
        const text = `${name} is kept as ${parameter.storage} codes, so its weights are no more what they were`;
        throw new DeepSpeedError('ERR_QUANTIZED', `${text}; load the model without quantization to have or save them`);
      }),
    );
  }

  dispose(): void {
    for (const parameter of [...this.#attached]) this.#drop(parameter);
    this.#working.dispose();
  }

  #drop(parameter: Parameter): void {
    for (const tensors of [this.#values, this.#quantized, this.#gradients]) {
      tensors.get(parameter)?.dispose();
      tensors.delete(parameter);
    }
    parameter.attach(undefined);
    this.#attached.delete(parameter);
  }
}

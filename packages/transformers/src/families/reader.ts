import { DeepSpeedError, type MlpActivation } from '@deepspeed-ts/core';

export type RawConfig = Readonly<Record<string, unknown>>;

/** Reads the fields of a config.json as Hugging Face does: an absent field has the family's default. Errors name family and field. */
export class ConfigReader {
  constructor(readonly raw: RawConfig) {}

  get family(): string {
    return String(this.raw.model_type);
  }

  /** A field that must be there. `keys`: other names that stand for the same, in order of preference. */
  need<T>(...keys: readonly string[]): T {
    for (const key of keys) if (this.raw[key] != null) return this.raw[key] as T;
    throw new DeepSpeedError('ERR_MODEL_CONFIG', `[decoderConfig] config.json of a ${this.family} has no '${keys.join("' or '")}'`);
  }

  /** A field or, where it is absent or null, its default. */
  get<T>(key: string, fallback: T): T {
    return (this.raw[key] ?? fallback) as T;
  }

  /** A field that may be null, and then means something else than its default. */
  nullable<T>(key: string, fallback: T | null): T | null {
    return this.raw[key] === undefined ? fallback : (this.raw[key] as T | null);
  }

  /** A number where 0 stands for null. */
  orZero(key: string, fallback: number | null): number {
    return this.nullable(key, fallback) ?? 0;
  }

  /** What a field's value means here; values that mean nothing are refused. */
  oneOf<T>(key: string, fallback: string, meanings: Readonly<Record<string, T>>): T {
    const value = this.get(key, fallback);
    if (!Object.hasOwn(meanings, value)) this.refuse(key, `; supported: ${Object.keys(meanings).join(', ')}`);
    return meanings[value]!;
  }

  /** Throws where a field has this value. */
  refuseIf(key: string, value: unknown): void {
    if (this.raw[key] === value) this.refuse(key);
  }

  refuse(key: string, more = ''): never {
    const value = JSON.stringify(this.raw[key]);
    throw new DeepSpeedError('ERR_MODEL_CONFIG', `[decoderConfig] ${key} = ${value} of a ${this.family} is not supported${more}`);
  }
}

/** Names of activations in config.json files. */
export const ACTIVATIONS: Readonly<Record<string, MlpActivation>> = {
  gelu: 'gelu',
  gelu_new: 'gelu_tanh',
  gelu_fast: 'gelu_tanh',
  gelu_pytorch_tanh: 'gelu_tanh',
  gelu_python: 'gelu',
  relu: 'relu',
};

/** Likewise, where they gate another map. */
export const GATED_ACTIVATIONS: Readonly<Record<string, MlpActivation>> = {
  silu: 'swiglu',
  swish: 'swiglu',
  gelu: 'geglu',
  gelu_new: 'geglu_tanh',
  gelu_pytorch_tanh: 'geglu_tanh',
};

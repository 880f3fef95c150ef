import { Device } from '@deepspeed-ts/core';
import {
  type FromPretrainedOptions,
  type ModelOptions,
  AutoModelForCausalLM as Models,
  type PretrainedModel,
} from '@deepspeed-ts/transformers';
import { type DeviceName, openDevice } from './device.js';

type OnDevice<Options> = Omit<Options, 'device'> & {
  /** Load it there at once, ready to generate. Default: `initialize` loads it. */
  readonly device?: Device | DeviceName;
};

/** Language models by what their config.json says they are; devices by name, as `initialize` takes them. See `@deepspeed-ts/transformers`. */
export const AutoModelForCausalLM = {
  /** The model of a Hugging Face directory, or of an id on the Hub. */
  async fromPretrained(pathOrId: string, options: OnDevice<FromPretrainedOptions> = {}): Promise<PretrainedModel> {
    return Models.fromPretrained(pathOrId, await withDevice(options));
  },

  /** A new model of a config.json's kind and size. */
  async fromConfig(config: Readonly<Record<string, unknown>>, options: OnDevice<ModelOptions> = {}): Promise<PretrainedModel> {
    return Models.fromConfig(config, await withDevice(options));
  },
};

async function withDevice<Options extends { readonly device?: Device | DeviceName }>(options: Options) {
  const { device, ...rest } = options;
  if (device === undefined) return rest;
  return { ...rest, device: device instanceof Device ? device : new Device((await openDevice(device)).backend) };
}

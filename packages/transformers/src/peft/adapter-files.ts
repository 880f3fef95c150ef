import { existsSync } from 'node:fs';
import { mkdir, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type HostTensor, type Parameter, readWeights, type TensorPlan, type WeightSource, writeSafetensors } from '@deepspeed-ts/core';
import { type JsonObject, readJsonFile } from '../pretrained/json-file.js';
import { SafetensorsWeights } from '../pretrained/safetensors-weights.js';
import type { StoredTensor } from '../pretrained/stored-weights.js';
import type { FullLoraConfig } from './config.js';
import { parseConfigFile } from './config-file.js';
import { PeftError } from './errors.js';
import { LayeredWeights } from './layered-weights.js';

const CONFIG = 'adapter_config.json';
const WEIGHTS = 'adapter_model.safetensors';
const PREFIX = 'base_model.model.';

/** The directory of an adapter, as PEFT writes it. Only headers are read until its weights are asked for. */
export class AdapterFiles {
  private constructor(
    readonly directory: string,
    readonly config: FullLoraConfig,
    readonly weights: SafetensorsWeights,
  ) {}

  /** @throws PeftError where a file is missing or the config is not one of LoRA */
  static async open(directory: string): Promise<AdapterFiles> {
    const raw = await readJsonFile(join(directory, CONFIG));
    if (!raw) throw new PeftError('ERR_PEFT_FILE', `${directory} has no ${CONFIG}: it is no directory of an adapter`);
    if (!existsSync(join(directory, WEIGHTS))) throw new PeftError('ERR_PEFT_FILE', `${directory} has no ${WEIGHTS}`);
    const config = parseConfigFile(raw, join(directory, CONFIG));
    return new AdapterFiles(directory, config, new SafetensorsWeights(join(directory, WEIGHTS)));
  }

  /**
   * Weights of the adapters' parameters, and of all others from `base`.
   *
   * @throws PeftError listing what is missing, unexpected or of another shape
   */
  source(parameters: ReadonlyMap<string, Parameter>, base: WeightSource | undefined): WeightSource {
    const stored = new Map(this.weights.tensors.map((tensor) => [tensor.name, tensor]));
    const found = new Map<string, StoredTensor>();
    const problems: string[] = [];
    for (const [name, { shape }] of parameters) {
      const tensor = stored.get(PREFIX + name);
      stored.delete(PREFIX + name);
      if (!tensor) problems.push(`${PREFIX + name} is missing`);
      else if (String(tensor.shape) !== String(shape))
        problems.push(`${tensor.name}: expected shape [${shape.join(', ')}], got [${tensor.shape.join(', ')}]`);
      else found.set(name, tensor);
    }
    problems.push(...[...stored.keys()].map((name) => `${name} is of no module that the config names`));
    if (problems.length > 0) {
      const shown = problems.slice(0, 20);
      if (problems.length > shown.length) shown.push(`and ${problems.length - shown.length} more`);
      throw new PeftError('ERR_PEFT_FILE', `${join(this.directory, WEIGHTS)} does not fit the model:\n- ${shown.join('\n- ')}`);
    }
    return new LayeredWeights(found, base);
  }

  /** Reads parameters that are whole on a device. */
  async readInto(source: WeightSource, parameters: ReadonlyMap<string, Parameter>): Promise<void> {
    try {
      await readWeights(
        source,
        [...parameters].map(([name, parameter]) => ({ name, start: 0, target: parameter.use() })),
      );
    } finally {
      for (const parameter of parameters.values()) parameter.done();
      source.close();
    }
  }
}

/** Writes the directory of an adapter. The config comes last: whoever finds it finds the weights. */
export async function writeAdapter(directory: string, parameters: ReadonlyMap<string, Parameter>, config: JsonObject): Promise<void> {
  await mkdir(directory, { recursive: true });
  const entries = [...parameters];
  const plan = entries.map(([name, { shape, dtype }]): TensorPlan => ({ name, shape, dtype }));
  await writeSafetensors(join(directory, WEIGHTS), plan, valuesOf(entries));
  const temporary = join(directory, `.${CONFIG}.${process.pid}.tmp`);
  await writeFile(temporary, `${JSON.stringify(config, null, 2)}\n`);
  await rename(temporary, join(directory, CONFIG));
}

async function* valuesOf(parameters: readonly (readonly [string, Parameter])[]): AsyncGenerator<readonly [string, HostTensor]> {
  for (const [name, parameter] of parameters) {
    const value = parameter.use();
    try {
      yield [name, await value.read()];
    } finally {
      parameter.done();
    }
  }
}

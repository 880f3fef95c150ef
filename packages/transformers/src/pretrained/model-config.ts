import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { PretrainedError } from './errors.js';
import { type JsonObject, readJsonFile } from './json-file.js';

/** The config.json of a model's directory. @throws PretrainedError where it is no such directory, or of a kind that can't be loaded */
export async function readModelConfig(directory: string): Promise<JsonObject> {
  const path = join(directory, 'config.json');
  const config = await readJsonFile(path);
  if (!config)
    throw new PretrainedError(
      'ERR_PRETRAINED_MISSING',
      directory,
      `there is no config.json, so it is not a model directory${hint(directory)}`,
    );
  if (config.model_type === undefined)
    throw new PretrainedError('ERR_PRETRAINED_FILE', path, "has no 'model_type', which says what the model is");
  const quantised = config.quantization_config as { quant_method?: unknown } | null | undefined;
  if (quantised) {
    const method = quantised.quant_method ?? 'an unknown method';
    const text = `its weights are quantised (${String(method)}), which is not supported; take the model that they were made of`;
    throw new PretrainedError('ERR_PRETRAINED_FILE', path, text);
  }
  return config;
}

function hint(directory: string): string {
  if (!existsSync(join(directory, 'adapter_config.json'))) return '';
  return ': it has an adapter, which PeftModel.fromPretrained(model, path) puts on the model that it was trained for';
}

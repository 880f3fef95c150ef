import { rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { DeepSpeedEngine } from 'deepspeed-ts';
import type { Vocabulary } from './text.js';

/** Writes model.safetensors, config.json and vocabulary.json into a folder. Every rank calls it; rank 0 writes. */
export async function save(engine: DeepSpeedEngine, directory: string, vocabulary: Vocabulary): Promise<void> {
  await engine.saveModel(directory);
  if (engine.rank !== 0) return;
  const path = join(directory, 'vocabulary.json');
  await writeFile(`${path}.tmp`, `${JSON.stringify(vocabulary)}\n`);
  await rename(`${path}.tmp`, path);
}

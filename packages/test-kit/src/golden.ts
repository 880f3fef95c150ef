import { existsSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type HostTensor, SafetensorsFile } from '@deepspeed-ts/core';
import { expect } from 'vitest';

/** Values computed by the reference software lie beside the repository, not in it. */
const root = resolve(fileURLToPath(new URL('../../../../shared/golden', import.meta.url)));

/** The folder of golden values, or `undefined` (after saying so) where it is not present. */
export function goldenFolder(...path: string[]): string | undefined {
  const folder = join(root, ...path);
  if (existsSync(folder)) return folder;
  console.warn(`skipped: no golden values at ${folder}`);
  return undefined;
}

/** All tensors of a safetensors file. */
export function readTensors(path: string): Map<string, HostTensor> {
  using file = new SafetensorsFile(path);
  return new Map(file.names.map((name) => [name, file.tensor(name)]));
}

export function readJson<T>(path: string): T {
  return JSON.parse(readFileSync(path, 'utf8')) as T;
}

/** Norm of the difference over norm of the expected values. */
export function relativeError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  expect(actual.length).toBe(expected.length);
  let difference = 0;
  let norm = 0;
  for (let i = 0; i < expected.length; i++) {
    difference += (actual[i]! - expected[i]!) ** 2;
    norm += expected[i]! ** 2;
  }
  return Math.sqrt(difference / Math.max(norm, 1e-300));
}

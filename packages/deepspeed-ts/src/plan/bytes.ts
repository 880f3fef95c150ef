import { DeepSpeedError } from '@deepspeed-ts/core';

const units: Readonly<Record<string, number>> = {
  b: 1,
  kib: 2 ** 10,
  mib: 2 ** 20,
  gib: 2 ** 30,
  tib: 2 ** 40,
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  tb: 1e12,
};

/**
 * Bytes of a size such as `80GiB`, `16 GB` or `1073741824`.
 *
 * @throws DeepSpeedError when it is not one
 */
export function parseBytes(size: string | number, what = 'size'): number {
  const [, digits, unit = 'b'] = /^\s*(\d+(?:\.\d+)?)\s*([a-z]+)?\s*$/i.exec(String(size)) ?? [];
  const factor = units[unit.toLowerCase()];
  const bytes = Number(digits) * (factor ?? Number.NaN);
  if (!(bytes >= 1))
    throw new DeepSpeedError('ERR_SIZE', `[plan] ${what}: expected bytes such as 80GiB, 16GB or 1073741824, got '${size}'`);
  return Math.floor(bytes);
}

/** For people: three digits or so, in powers of 1024. */
export function formatBytes(bytes: number): string {
  for (const [name, size] of [
    ['TiB', 2 ** 40],
    ['GiB', 2 ** 30],
    ['MiB', 2 ** 20],
    ['KiB', 2 ** 10],
  ] as const)
    if (bytes >= size) return `${(bytes / size).toFixed(bytes >= 100 * size ? 0 : bytes >= 10 * size ? 1 : 2)} ${name}`;
  return `${bytes} B`;
}

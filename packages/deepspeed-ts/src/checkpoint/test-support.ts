import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { recordOf } from './io/chunks.js';
import { type Manifest, seal } from './manifest.js';

/** Rewrites a small checkpoint as if its parameters had always had other names. */
export function renameParameters(directory: string, rename: (name: string) => string): void {
  const path = join(directory, 'deepspeed-ts.json');
  const { checksum: _, ...body } = JSON.parse(readFileSync(path, 'utf8')) as Manifest;
  const files = Object.entries(body.files).map(([name, record]) => {
    if (!name.endsWith('.safetensors')) return [name, record] as const;
    const bytes = rewriteHeader(readFileSync(join(directory, name)), rename);
    writeFileSync(join(directory, name), bytes);
    return [name, recordOf(bytes)] as const;
  });
  writeFileSync(path, `${JSON.stringify(seal({ ...body, files: Object.fromEntries(files) }), null, 2)}\n`);
}

function rewriteHeader(file: Buffer, rename: (name: string) => string): Buffer {
  const end = 8 + Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString('utf8', 8, end)) as Record<string, unknown>;
  const json = Buffer.from(JSON.stringify(Object.fromEntries(Object.entries(header).map(([name, entry]) => [rename(name), entry]))));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  return Buffer.concat([length, json, file.subarray(end)]);
}

import { open, rename, rm } from 'node:fs/promises';
import { bytesOf, type DType } from '../dtype.js';
import { DeepSpeedError } from '../errors.js';
import { encode, type HostTensor } from '../tensor/host.js';
import { numelOf, type Shape } from '../tensor/tensor.js';
import { dtypeNames, HEADER_ALIGNMENT, type TensorEntry } from './format.js';

export interface TensorPlan {
  readonly name: string;
  readonly shape: Shape;
  readonly dtype: DType;
}

/**
 * Writes a safetensors file from a stream: the plan says what comes, so the header goes first and no more than one tensor is ever
 * held. The file gets its name only once it is whole and on disk; a failure leaves what was there before.
 */
export async function writeSafetensors(
  path: string,
  plan: readonly TensorPlan[],
  tensors: AsyncIterable<readonly [name: string, value: HostTensor]>,
  metadata: Readonly<Record<string, string>> = { format: 'pt' },
): Promise<void> {
  const temporary = `${path}.${process.pid}.tmp`;
  const file = await open(temporary, 'w');
  try {
    await file.write(safetensorsHeader(plan, metadata));
    let next = 0;
    for await (const [name, value] of tensors) {
      const expected = checked(plan, next++, name, value);
      await writeAll(file, encode({ ...value, dtype: expected.dtype }));
    }
    if (next !== plan.length) throw wrong(`expected ${plan.length} tensors, got ${next}`);
    await file.sync();
    await file.close();
    await rename(temporary, path);
  } catch (error) {
    await file.close().catch(() => {});
    await rm(temporary, { force: true });
    throw error;
  }
}

/** A tensor of another size would shift all that follow it. */
function checked(plan: readonly TensorPlan[], index: number, name: string, { shape, data }: HostTensor): TensorPlan {
  const expected = plan[index];
  if (!expected) throw wrong(`expected ${plan.length} tensors, got one more: '${name}'`);
  if (expected.name !== name) throw wrong(`expected tensor '${expected.name}' next, got '${name}'`);
  if (data.length !== numelOf(expected.shape)) {
    const got = `${data.length} values of shape [${shape.join(', ')}]`;
    throw wrong(`expected tensor '${name}' of shape [${expected.shape.join(', ')}], got ${got}`);
  }
  return expected;
}

function wrong(detail: string): DeepSpeedError {
  return new DeepSpeedError('ERR_SAFETENSORS', `[safetensors] ${detail}`);
}

async function writeAll(
  file: { write(bytes: Uint8Array, offset: number): Promise<{ bytesWritten: number }> },
  bytes: Uint8Array,
): Promise<void> {
  for (let done = 0; done < bytes.byteLength; ) done += (await file.write(bytes, done)).bytesWritten;
}

/** What a safetensors file begins with; after it come the bytes of the tensors, in the order of the plan. */
export function safetensorsHeader(plan: readonly TensorPlan[], metadata: Readonly<Record<string, string>> = { format: 'pt' }): Uint8Array {
  const entries: Record<string, TensorEntry | Readonly<Record<string, string>>> = { __metadata__: metadata };
  let offset = 0;
  for (const { name, shape, dtype } of plan) {
    const end = offset + numelOf(shape) * bytesOf(dtype);
    entries[name] = { dtype: dtypeNames[dtype], shape, data_offsets: [offset, end] };
    offset = end;
  }
  const json = new TextEncoder().encode(JSON.stringify(entries));
  const padded = Math.ceil(json.byteLength / HEADER_ALIGNMENT) * HEADER_ALIGNMENT;
  const header = new Uint8Array(8 + padded).fill(0x20, 8);
  new DataView(header.buffer).setBigUint64(0, BigInt(padded), true);
  header.set(json, 8);
  return header;
}

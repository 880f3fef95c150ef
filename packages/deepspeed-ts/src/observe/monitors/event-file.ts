import { crc32c, masked } from './crc32c.js';

/**
 * TensorBoard's file: TFRecords, each an `Event` of tensorflow/core/util/event.proto in protobuf's wire format. Only what scalars need.
 *
 *   record   length u64 | masked crc of it u32 | data | masked crc of it u32, all little-endian
 */
export function record(data: Uint8Array): Uint8Array {
  const bytes = Buffer.alloc(8 + 4 + data.byteLength + 4);
  bytes.writeBigUInt64LE(BigInt(data.byteLength), 0);
  bytes.writeUInt32LE(masked(crc32c(bytes.subarray(0, 8))), 8);
  bytes.set(data, 12);
  bytes.writeUInt32LE(masked(crc32c(data)), 12 + data.byteLength);
  return bytes;
}

/** The first event of a file. @param time - seconds since 1970 */
export function versionEvent(time: number): Uint8Array {
  return Buffer.concat([double(1, time), bytesField(3, Buffer.from('brain.Event:2'))]);
}

/** Event { wall_time = 1, step = 2, summary = 5 { value = 1 { tag = 1, simple_value = 2 } } } */
export function scalarEvent(time: number, step: number, tag: string, value: number): Uint8Array {
  const summaryValue = Buffer.concat([bytesField(1, Buffer.from(tag)), float(2, value)]);
  return Buffer.concat([double(1, time), integer(2, step), bytesField(5, bytesField(1, summaryValue))]);
}

// Wire types: 0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes.
function key(field: number, wireType: number): Uint8Array {
  return varint((field << 3) | wireType);
}

function varint(value: number): Uint8Array {
  const bytes: number[] = [];
  let rest = BigInt(value);
  for (; rest >= 128n; rest >>= 7n) bytes.push(Number(rest & 127n) | 128);
  return Uint8Array.from([...bytes, Number(rest)]);
}

function integer(field: number, value: number): Uint8Array {
  return Buffer.concat([key(field, 0), varint(value)]);
}

function double(field: number, value: number): Uint8Array {
  const bytes = Buffer.alloc(8);
  bytes.writeDoubleLE(value);
  return Buffer.concat([key(field, 1), bytes]);
}

function float(field: number, value: number): Uint8Array {
  const bytes = Buffer.alloc(4);
  bytes.writeFloatLE(value);
  return Buffer.concat([key(field, 5), bytes]);
}

function bytesField(field: number, value: Uint8Array): Uint8Array {
  return Buffer.concat([key(field, 2), varint(value.byteLength), value]);
}

import { crc32c, masked } from './crc32c.js';
import { double, float, integer, message, text } from './protobuf.js';

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
  return Buffer.concat([double(1, time), text(3, 'brain.Event:2')]);
}

/** Event { wall_time = 1, step = 2, summary = 5 { value = 1 { tag = 1, simple_value = 2 } } } */
export function scalarEvent(time: number, step: number, tag: string, value: number): Uint8Array {
  return Buffer.concat([double(1, time), integer(2, step), message(5, message(1, text(1, tag), float(2, value)))]);
}

import { fieldsOf, real, slowCrc, text } from './test-readers.js';

/** A reader of TensorBoard's event files for tests: shares nothing with the writer, checks everything. */
export interface ReadEvent {
  readonly time: number;
  readonly step?: number;
  readonly version?: string;
  readonly scalars: readonly { readonly tag: string; readonly value: number }[];
}

export function readEventFile(file: Uint8Array): ReadEvent[] {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const events: ReadEvent[] = [];
  for (let at = 0; at < file.byteLength; ) {
    const length = Number(view.getBigUint64(at, true));
    checkSum(file.subarray(at, at + 8), view.getUint32(at + 8, true));
    const data = file.subarray(at + 12, at + 12 + length);
    checkSum(data, view.getUint32(at + 12 + length, true));
    events.push(eventOf(data));
    at += 16 + length;
  }
  return events;
}

function eventOf(bytes: Uint8Array): ReadEvent {
  const fields = fieldsOf(bytes);
  const step = fields.find(({ field }) => field === 2)?.value as bigint | undefined;
  const version = fields.find(({ field }) => field === 3)?.value as Uint8Array | undefined;
  const summaries = fields.filter(({ field }) => field === 5).flatMap(({ value }) => fieldsOf(value as Uint8Array));
  return {
    time: real(fields.find(({ field }) => field === 1)!.value as Uint8Array),
    ...(step !== undefined && { step: Number(step) }),
    ...(version && { version: text(version) }),
    scalars: summaries.map(({ value }) => {
      const inner = fieldsOf(value as Uint8Array);
      const of = (wanted: number) => inner.find(({ field }) => field === wanted)!.value as Uint8Array;
      return { tag: text(of(1)), value: real(of(2)) };
    }),
  };
}

function checkSum(bytes: Uint8Array, masked: number): void {
  const crc = BigInt(slowCrc(bytes, 0x82f63b78n));
  const expected = ((((crc >> 15n) | (crc << 17n)) & 0xffffffffn) + 0xa282ead8n) & 0xffffffffn;
  if (Number(expected) !== masked) throw new Error('checksum is wrong');
}

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

/** Protobuf's wire format: numbers of varints, bytes of all else. */
function fieldsOf(bytes: Uint8Array): { field: number; value: bigint | Uint8Array }[] {
  const fields: { field: number; value: bigint | Uint8Array }[] = [];
  let at = 0;
  const number = (): bigint => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = bytes[at++]!;
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
  };
  const take = (length: number) => {
    at += length;
    return bytes.slice(at - length, at);
  };
  while (at < bytes.length) {
    const key = Number(number());
    const field = key >> 3;
    const wire = key & 7;
    if (wire === 0) fields.push({ field, value: number() });
    else fields.push({ field, value: take(wire === 1 ? 8 : wire === 5 ? 4 : Number(number())) });
  }
  return fields;
}

function real(bytes: Uint8Array): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return bytes.length === 8 ? view.getFloat64(0, true) : view.getFloat32(0, true);
}

function text(bytes: Uint8Array): string {
  return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
}

/** The polynomial by long division, a bit at a time. */
function checkSum(bytes: Uint8Array, masked: number): void {
  let remainder = 0xffffffffn;
  for (const byte of bytes) {
    for (let bit = 0; bit < 8; bit++) {
      const carry = (remainder & 1n) ^ BigInt((byte >> bit) & 1);
      remainder = (remainder >> 1n) ^ (carry ? 0x82f63b78n : 0n);
    }
  }
  const crc = remainder ^ 0xffffffffn;
  const expected = ((((crc >> 15n) | (crc << 17n)) & 0xffffffffn) + 0xa282ead8n) & 0xffffffffn;
  if (Number(expected) !== masked) throw new Error('checksum is wrong');
}

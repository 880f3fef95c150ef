// What readers of monitors' files share. They are for tests, and share nothing with the writers.

/** Protobuf's wire format: numbers of varints, bytes of all else. */
export function fieldsOf(bytes: Uint8Array): { field: number; value: bigint | Uint8Array }[] {
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

export function real(bytes: Uint8Array): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return bytes.length === 8 ? view.getFloat64(0, true) : view.getFloat32(0, true);
}

export function text(bytes: Uint8Array): string {
  return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
}

/** A CRC of 32 bits by long division, a bit at a time. @param polynomial - its bits reversed */
export function slowCrc(bytes: Uint8Array, polynomial: bigint): number {
  let remainder = 0xffffffffn;
  for (const byte of bytes) {
    for (let bit = 0; bit < 8; bit++) {
      const carry = (remainder & 1n) ^ BigInt((byte >> bit) & 1);
      remainder = (remainder >> 1n) ^ (carry ? polynomial : 0n);
    }
  }
  return Number(remainder ^ 0xffffffffn);
}

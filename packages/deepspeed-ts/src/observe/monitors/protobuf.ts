// Protobuf's wire format, as much of it as is written here. Wire types: 0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes.

/** An int32 or int64 that is not negative. */
export function integer(field: number, value: number): Uint8Array {
  return Buffer.concat([key(field, 0), varint(value)]);
}

export function double(field: number, value: number): Uint8Array {
  const bytes = Buffer.alloc(8);
  bytes.writeDoubleLE(value);
  return Buffer.concat([key(field, 1), bytes]);
}

export function float(field: number, value: number): Uint8Array {
  const bytes = Buffer.alloc(4);
  bytes.writeFloatLE(value);
  return Buffer.concat([key(field, 5), bytes]);
}

export function text(field: number, value: string): Uint8Array {
  return message(field, Buffer.from(value));
}

/** A message by its fields. */
export function message(field: number, ...fields: readonly Uint8Array[]): Uint8Array {
  const length = fields.reduce((sum, { byteLength }) => sum + byteLength, 0);
  return Buffer.concat([key(field, 2), varint(length), ...fields]);
}

function key(field: number, wireType: number): Uint8Array {
  return varint((field << 3) | wireType);
}

function varint(value: number): Uint8Array {
  const bytes: number[] = [];
  let rest = BigInt(value);
  for (; rest >= 128n; rest >>= 7n) bytes.push(Number(rest & 127n) | 128);
  return Uint8Array.from([...bytes, Number(rest)]);
}

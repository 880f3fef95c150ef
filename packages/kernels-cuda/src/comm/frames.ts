/** What ranks say to each other beside NCCL; see rendezvous.ts (the first six) and control-plane.ts. */
export const MessageType = {
  hello: 1,
  welcome: 2,
  table: 3,
  refused: 4,
  ready: 5,
  go: 6,
  report: 7,
  agreed: 8,
  failure: 9,
  goodbye: 10,
  stuck: 11,
  split: 12,
  splitAnswer: 13,
  tag: 14,
  where: 15,
  site: 16,
} as const;

/** "DSC" and the version of the protocol: tells us from any other program that may sit on the port. */
const magic = 0x44534302;
const headerBytes = 12;
const longest = 16 << 20;

/** A message: magic, type and length in 32 bits each, then the payload. */
export function frame(type: number, payload: Uint8Array): Uint8Array {
  const bytes = Buffer.allocUnsafe(headerBytes + payload.byteLength);
  bytes.writeUInt32BE(magic, 0);
  bytes.writeUInt32BE(type, 4);
  bytes.writeUInt32BE(payload.byteLength, 8);
  bytes.set(payload, headerBytes);
  return bytes;
}

/** Cuts a stream of bytes into messages. */
export class FrameReader {
  #rest: Buffer = Buffer.alloc(0);

  /** False when this is not one of ours. */
  push(chunk: Buffer, take: (type: number, payload: Buffer) => void): boolean {
    let bytes = this.#rest.length ? Buffer.concat([this.#rest, chunk]) : chunk;
    while (bytes.length >= headerBytes) {
      const length = bytes.readUInt32BE(8);
      if (bytes.readUInt32BE(0) !== magic || length > longest) return false;
      if (bytes.length < headerBytes + length) break;
      const payload = bytes.subarray(headerBytes, headerBytes + length);
      const type = bytes.readUInt32BE(4);
      bytes = bytes.subarray(headerBytes + length);
      take(type, payload);
    }
    // A foreign greeting may be shorter than a header.
    if (bytes.length >= 4 && bytes.readUInt32BE(0) !== magic) return false;
    this.#rest = Buffer.from(bytes);
    return true;
  }
}

export const text = (payload: Uint8Array): string => Buffer.from(payload).toString('utf8');
export const json = <T>(payload: Uint8Array): T => JSON.parse(text(payload)) as T;
export const utf8 = (value: string): Uint8Array => Buffer.from(value, 'utf8');
export const asJson = (value: unknown): Uint8Array => utf8(JSON.stringify(value));

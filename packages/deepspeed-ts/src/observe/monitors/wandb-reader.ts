import { fieldsOf, slowCrc, text } from './test-readers.js';

/** A reader of offline runs of Weights & Biases for tests: shares nothing with the writer, checks everything. */
export interface ReadRun {
  readonly id: string;
  readonly entity?: string;
  readonly project: string;
  readonly group?: string;
  readonly host: string;
  /** Seconds since 1970. */
  readonly started: number;
  readonly config: Readonly<Record<string, unknown>>;
  readonly rows: readonly Readonly<Record<string, number>>[];
  readonly summary: Readonly<Record<string, number>>;
  /** Undefined where the run has not ended. */
  readonly exitCode: number | undefined;
}

type Message = ReturnType<typeof fieldsOf>;

export function readWandbFile(file: Uint8Array): ReadRun {
  const [header, run, ...others] = recordsOf(file).map(recordOf);
  if (header!.kind !== 21 || run!.kind !== 17) throw new Error('expected a header and a run');
  const rows: Record<string, number>[] = [];
  const summary: Record<string, number> = {};
  let exitCode: number | undefined;
  for (const { kind, body } of others) {
    if (exitCode !== undefined) throw new Error('records after the last');
    if (kind === 2) {
      const row = itemsOf(body) as Record<string, number>;
      if (row._step !== Number(one(message(body, 2), 1))) throw new Error('two steps');
      rows.push(row);
    } else if (kind === 3) Object.assign(summary, itemsOf(body));
    else if (kind === 18) exitCode = Number(one(body, 1));
    else throw new Error(`record of kind ${kind}`);
  }
  const { body } = run!;
  const entity = one(body, 2);
  const group = one(body, 6);
  const time = message(body, 17);
  return {
    id: string(one(body, 1)),
    project: string(one(body, 3)),
    host: string(one(body, 13)),
    ...(entity !== undefined && { entity: string(entity) }),
    ...(group !== undefined && { group: string(group) }),
    started: Number(one(time, 1)) + Number(one(time, 2)) / 1e9,
    config: itemsOf(message(body, 4)),
    rows,
    summary,
    exitCode,
  };
}

/** The records of a log in LevelDB's format behind seven bytes. */
function recordsOf(file: Uint8Array): Uint8Array[] {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  if (text(file.subarray(0, 4)) !== ':W&B' || view.getUint16(4, true) !== 0xbee1 || file[6] !== 0) throw new Error('not a run');
  const records: Uint8Array[] = [];
  let open: Uint8Array[] = [];
  for (let at = 7; at < file.length; ) {
    const left = 32768 - (at % 32768);
    if (left < 7) {
      if (file.subarray(at, at + left).some((byte) => byte !== 0)) throw new Error('padding is not zero');
      at += left;
      continue;
    }
    const length = view.getUint16(at + 4, true);
    if (at + 7 + length > file.length) throw new Error('the last fragment is cut');
    if (7 + length > left) throw new Error('a fragment crosses a border');
    const type = file[at + 6]!;
    if (slowCrc(file.subarray(at + 6, at + 7 + length), 0xedb88320n) !== view.getUint32(at, true)) throw new Error('checksum is wrong');
    if ((type === 1 || type === 2) !== (open.length === 0)) throw new Error('a fragment is missing');
    open.push(file.subarray(at + 7, at + 7 + length));
    if (type === 1 || type === 4) {
      records.push(Buffer.concat(open));
      open = [];
    }
    at += 7 + length;
  }
  if (open.length > 0) throw new Error('the last record is cut');
  return records;
}

function recordOf(bytes: Uint8Array, index: number): { kind: number; body: Message } {
  const fields = fieldsOf(bytes);
  if (Number(one(fields, 1)) !== index + 1) throw new Error('records are not in order');
  const kinds = fields.filter(({ field }) => field !== 1 && field !== 200);
  if (kinds.length !== 1) throw new Error('expected one kind of record');
  return { kind: kinds[0]!.field, body: fieldsOf(kinds[0]!.value as Uint8Array) };
}

function itemsOf(fields: Message): Record<string, unknown> {
  const items = fields.filter(({ field }) => field === 1).map(({ value }) => fieldsOf(value as Uint8Array));
  return Object.fromEntries(items.map((item) => [string(one(item, 1) ?? one(item, 2)), json(string(one(item, 16)))]));
}

/** Python's JSON. */
function json(source: string): unknown {
  return ['NaN', 'Infinity', '-Infinity'].includes(source) ? Number(source) : JSON.parse(source);
}

function one(fields: Message, wanted: number): bigint | Uint8Array | undefined {
  return fields.find(({ field }) => field === wanted)?.value;
}

function message(fields: Message, wanted: number): Message {
  return fieldsOf(one(fields, wanted) as Uint8Array);
}

function string(value: bigint | Uint8Array | undefined): string {
  return text(value as Uint8Array);
}

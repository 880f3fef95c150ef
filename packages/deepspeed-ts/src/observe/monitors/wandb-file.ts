import { crc32 } from 'node:zlib';
import { integer, message, text } from './protobuf.js';

/** What a run is and where it is to be shown. */
export interface WandbRun {
  readonly id: string;
  readonly project: string;
  /** Whose project; null: that of whoever uploads it. */
  readonly entity: string | null;
  readonly group: string | null;
  readonly host: string;
  /** Milliseconds since 1970. */
  readonly started: number;
  /** Settings to look at. */
  readonly config: Readonly<Record<string, unknown>>;
}

const BLOCK = 32768;
/** ':W&B', the number 0xBEE1 and version 0. */
const FILE_HEADER = Buffer.from([0x3a, 0x57, 0x26, 0x42, 0xe1, 0xbe, 0]);
/** Of a fragment: crc u32, length u16, type u8, all little-endian. */
const FRAGMENT_HEADER = 7;
const [WHOLE, FIRST, MIDDLE, LAST] = [1, 2, 3, 4] as const;

/**
 * The file of an offline run of Weights & Biases, `run-<id>.wandb`, as a stream of bytes: a log in LevelDB's format (doc/log_format.md there) behind
 * a header of its own. Records are cut into fragments, none across a border of 32 KiB; where fewer than 7 bytes are left before one, they are zeros. The
 * checksum is the CRC-32 of type and bytes, where LevelDB has a masked CRC-32C. Each record is a `Record` of
 * wandb/proto/wandb_internal.proto: of those, this writes header, run, history, summary and exit.
 */
export class WandbFile {
  readonly #run: WandbRun;
  #records = 0;
  #position = FILE_HEADER.length;

  constructor(run: WandbRun) {
    this.#run = run;
  }

  /** What comes first. HeaderRecord { version_info = 1 { producer = 1 } }, then the RunRecord. */
  begin(): Uint8Array {
    const { id, entity, project, config, group, host, started } = this.#run;
    const update = Object.entries(config).map(([name, value]) => message(1, text(1, name), text(16, JSON.stringify(value ?? null))));
    const run = [
      text(1, id),
      ...(entity === null ? [] : [text(2, entity)]),
      text(3, project),
      message(4, ...update),
      ...(group === null ? [] : [text(6, group)]),
      text(13, host),
      message(17, integer(1, Math.floor(started / 1000)), integer(2, (started % 1000) * 1_000_000)),
    ];
    return Buffer.concat([FILE_HEADER, this.#record(21, message(1, text(1, 'deepspeed-ts'))), this.#record(17, ...run)]);
  }

  /** Values of one step, and the same as what the run has come to. HistoryRecord { item = 1, step = 2 { num = 1 } }, SummaryRecord { update = 1 } */
  row(step: number, time: number, values: readonly (readonly [name: string, value: number])[]): Uint8Array {
    const runtime = (time - this.#run.started) / 1000;
    const all = [...values, ['_step', step], ['_timestamp', time / 1000], ['_runtime', runtime]] as const;
    const items = all.map(([name, value]) => message(1, text(2, name), text(16, jsonNumber(value))));
    return Buffer.concat([this.#record(2, ...items, message(2, integer(1, step))), this.#record(3, ...items)]);
  }

  /** What comes last. RunExitRecord { exit_code = 1, runtime = 2 } */
  end(time: number): Uint8Array {
    return this.#record(18, integer(1, 0), integer(2, Math.floor((time - this.#run.started) / 1000)));
  }

  /** Record { num = 1, _info = 200 { stream_id = 1 } } with one of its kinds. */
  #record(kind: number, ...fields: readonly Uint8Array[]): Uint8Array {
    return this.#fragments(Buffer.concat([integer(1, ++this.#records), message(kind, ...fields), message(200, text(1, this.#run.id))]));
  }

  #fragments(record: Uint8Array): Uint8Array {
    const parts: Uint8Array[] = [];
    for (let done = 0; done < record.length; ) {
      const left = BLOCK - (this.#position % BLOCK);
      if (left < FRAGMENT_HEADER) {
        parts.push(Buffer.alloc(left));
        this.#position += left;
        continue;
      }
      const bytes = record.subarray(done, done + left - FRAGMENT_HEADER);
      const isFirst = done === 0;
      done += bytes.length;
      const isLast = done === record.length;
      parts.push(fragment(isFirst ? (isLast ? WHOLE : FIRST) : isLast ? LAST : MIDDLE, bytes));
      this.#position += FRAGMENT_HEADER + bytes.length;
    }
    return Buffer.concat(parts);
  }
}

function fragment(type: number, bytes: Uint8Array): Uint8Array {
  const header = Buffer.alloc(FRAGMENT_HEADER);
  header.writeUInt32LE(crc32(bytes, crc32(Buffer.of(type))), 0);
  header.writeUInt16LE(bytes.length, 4);
  header.writeUInt8(type, 6);
  return Buffer.concat([header, bytes]);
}

/** Their JSON has NaN, Infinity and -Infinity. */
function jsonNumber(value: number): string {
  return Number.isFinite(value) ? JSON.stringify(value) : String(value);
}

import { Agreement } from './agreement.js';
import { callBytes, readCall } from './call.js';
import { asJson, json, MessageType, text } from './frames.js';
import type { Link } from './link.js';

/** Why a group can't go on, as rank 0 tells the others. */
export interface GroupFailure {
  readonly kind: 'peer_lost' | 'mismatch';
  /** The rank that it is about; -1: none in particular. */
  readonly peer: number;
  readonly text: string;
  /** The peer has gone without a word: what is about to end may still do so. */
  readonly lost?: boolean;
}

export interface SplitRequest {
  readonly color: number;
  readonly key: number;
  /** Where the rank would listen if it were to lead its new group. */
  readonly port: number;
}
export interface SplitAnswer {
  readonly rank: number;
  readonly size: number;
  /** Of the new group's rank 0; empty: the host of this group's rank 0. */
  readonly host: string;
  readonly port: number;
  readonly leader: number;
}

/** How long the calls of ranks that have said nothing yet are waited for, so that an error can name them too; and then their stacks. */
const mismatchMs = 500;

/**
 * Rank 0's side of the control plane: compares the ranks' calls, and tells everybody when a rank is lost, closed or silent, or
 * has called something else than the others. See docs/design/communication-cuda.md.
 */
export class Hub {
  readonly #links: readonly Link[];
  readonly #hosts: readonly string[];
  readonly #agreement: Agreement;
  readonly #closedAt: (number | undefined)[] = [];
  #splits: (SplitRequest | undefined)[] = [];
  #announced = 0;
  #announcing = false;
  #failed = false;
  #mismatchTimer: NodeJS.Timeout | undefined;
  readonly #tags = new Map<number, string>([[0, '']]);
  /** Where each rank made the call in which they differ; present once they were asked. */
  #sites: (string | undefined)[] | undefined;

  /** `links[rank]` leads to each rank, also to this process's own; `hosts[rank]` is the address it came from. */
  constructor(links: readonly Link[], hosts: readonly string[]) {
    this.#links = links;
    this.#hosts = hosts;
    this.#agreement = new Agreement(links.length);
    for (const [rank, link] of links.entries())
      link.listen({
        message: (type, payload) => this.#hear(rank, type, payload),
        ended: (reason) => this.#end(rank, reason),
      });
  }

  hold(held: boolean): void {
    for (const link of this.#links) link.hold(held);
  }

  /** Tells the others that rank 0 closes after `calls` calls. */
  leave(calls: number): void {
    for (const link of this.#links) link.send(MessageType.goodbye, number(calls));
  }

  async close(): Promise<void> {
    clearTimeout(this.#mismatchTimer);
    this.#announce();
    for (const link of this.#links) link.listen({ message() {}, ended() {} });
    await Promise.all(this.#links.map((link) => link.close()));
  }

  #hear(rank: number, type: number, payload: Buffer): void {
    const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
    switch (type) {
      case MessageType.report: {
        let sequence = view.getFloat64(0);
        for (let at = 8; at < payload.byteLength; at += callBytes) this.#agreement.add(rank, sequence++, readCall(view, at, this.#tags));
        this.#judge();
        break;
      }
      case MessageType.failure:
        this.#tell(json<GroupFailure>(payload));
        break;
      case MessageType.goodbye:
        this.#closedAt[rank] = view.getFloat64(0);
        this.#judge();
        break;
      case MessageType.stuck:
        this.#explain(view.getFloat64(0), view.getFloat64(8));
        break;
      case MessageType.tag:
        this.#tags.set(view.getUint32(0), text(payload.subarray(4)));
        break;
      case MessageType.site:
        if (this.#sites) this.#sites[rank] = text(payload);
        if (this.#sites && Object.keys(this.#sites).length === this.#links.length) this.#tellMismatch();
        break;
      case MessageType.split:
        this.#split(rank, json<SplitRequest>(payload));
        break;
    }
  }

  #end(rank: number, reason: string): void {
    if (this.#closedAt[rank] === undefined) this.#tell({ kind: 'peer_lost', peer: rank, text: reason, lost: true });
  }

  #judge(): void {
    if (this.#agreement.agreed > this.#announced && !this.#announcing) {
      this.#announcing = true;
      queueMicrotask(() => this.#announce());
    }
    const mismatch = this.#agreement.mismatch();
    if (mismatch?.complete) this.#askForSites(mismatch.sequence);
    else if (mismatch) this.#mismatchTimer ??= setTimeout(() => this.#askForSites(mismatch.sequence), mismatchMs).unref();
    const left = this.#closedAt.findIndex((calls) => calls !== undefined && calls < this.#agreement.reached);
    if (left >= 0) this.#tell({ kind: 'peer_lost', peer: left, text: 'it has closed its communicator' });
  }

  #askForSites(sequence: number): void {
    if (this.#sites) return;
    this.#sites = [];
    clearTimeout(this.#mismatchTimer);
    this.#mismatchTimer = setTimeout(() => this.#tellMismatch(), mismatchMs).unref();
    for (const link of this.#links) link.send(MessageType.where, number(sequence));
  }

  #tellMismatch(): void {
    clearTimeout(this.#mismatchTimer);
    const sites = this.#sites!.map((site, rank) => site && `\nrank ${rank} called it from\n${site}`).join('');
    this.#tell({ kind: 'mismatch', peer: -1, text: `${this.#agreement.mismatch()!.message}${sites}` });
  }

  #announce(): void {
    this.#announcing = false;
    if (this.#agreement.agreed === this.#announced) return;
    this.#announced = this.#agreement.agreed;
    for (const link of this.#links) link.send(MessageType.agreed, number(this.#announced));
  }

  /** A collective does not end: who has not come to it? */
  #explain(sequence: number, seconds: number): void {
    const missing = this.#agreement.missing(sequence);
    const allowed = `${seconds} s (DEEPSPEED_TS_COMM_TIMEOUT)`;
    if (missing.length === 0) {
      this.#tell({ kind: 'peer_lost', peer: -1, text: `every rank has come to it, but it has not ended within ${allowed}` });
      return;
    }
    const who = missing.length === 1 ? 'it is' : `ranks ${missing.join(', ')} are`;
    this.#tell({ kind: 'peer_lost', peer: missing[0]!, text: `${who} alive but silent: not there within ${allowed}` });
  }

  #tell(failure: GroupFailure): void {
    if (this.#failed) return;
    this.#failed = true;
    this.#announce();
    for (const link of this.#links) link.send(MessageType.failure, asJson(failure));
  }

  #split(rank: number, request: SplitRequest): void {
    this.#splits[rank] = request;
    const requests = this.#splits;
    if (requests.filter((known) => known !== undefined).length < this.#links.length) return;
    this.#splits = [];
    for (const [member, link] of this.#links.entries()) {
      const { color } = requests[member]!;
      const group = requests.flatMap((other, r) => (other!.color === color ? [{ rank: r, key: other!.key }] : []));
      group.sort((a, b) => a.key - b.key || a.rank - b.rank);
      const leader = group[0]!.rank;
      const answer: SplitAnswer = {
        rank: group.findIndex((other) => other.rank === member),
        size: group.length,
        host: this.#hosts[leader]!,
        port: requests[leader]!.port,
        leader,
      };
      link.send(MessageType.splitAnswer, asJson(answer));
    }
  }
}

/** A payload of one number. */
export function number(value: number): Uint8Array {
  const bytes = Buffer.alloc(8);
  bytes.writeDoubleBE(value);
  return bytes;
}

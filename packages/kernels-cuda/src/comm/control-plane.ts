import { CallSites } from '@deepspeed-ts/core';
import { type Call, callBytes, tagNumber, writeCall } from './call.js';
import { asJson, json, MessageType, utf8 } from './frames.js';
import { type GroupFailure, type Hub, number, type SplitAnswer, type SplitRequest } from './hub.js';
import type { Link } from './link.js';

export interface ControlListener {
  /** All ranks have made the calls up to this one, and made them alike. */
  agreed(sequence: number): void;
  failed(failure: GroupFailure): void;
}

/** A split that the group did not live to see. */
type SplitWaiter = { resolve(answer: SplitAnswer): void; reject(failure: GroupFailure): void };

/**
 * One rank's side of the control plane: reports this rank's calls to rank 0, one message for those of a tick, and hears what rank 0
 * makes of them. Collectives don't wait for it.
 */
export class ControlPlane {
  readonly #link: Link;
  readonly #hub: Hub | null;
  #listener: ControlListener = { agreed() {}, failed() {} };
  #calls = 0;
  #report = new DataView(new ArrayBuffer(8 + 64 * callBytes));
  #reported = 0;
  #closing = false;
  #hubCalls = Number.POSITIVE_INFINITY;
  #failure: GroupFailure | null = null;
  #splits: SplitWaiter[] = [];
  readonly #tags = new Map<string, number>([['', 0]]);
  readonly #sites = new CallSites();
  readonly #flushSoon = () => this.#flush();

  /** `hub` is rank 0's, in its own process. */
  constructor(link: Link, hub: Hub | null) {
    this.#link = link;
    this.#hub = hub;
  }

  listen(listener: ControlListener): void {
    this.#listener = listener;
    this.#link.listen({
      message: (type, payload) => this.#hear(type, payload),
      ended: (reason) => this.#end(reason),
    });
  }

  /** Whether the connections keep the process alive. */
  hold(held: boolean): void {
    this.#link.hold(held);
    this.#hub?.hold(held);
  }

  /** The number of this rank's next collective, which goes into its next report. `caller`: the function that was called for it. */
  // biome-ignore lint/complexity/noBannedTypes: as Error.captureStackTrace has it
  report(call: Call, caller: Function): number {
    const tag = this.#tags.get(call.tag) ?? this.#introduce(call.tag);
    const sequence = ++this.#calls;
    this.#sites.remember(sequence, caller);
    const waiting = this.#calls - this.#reported;
    if (waiting === 1) {
      this.#report.setFloat64(0, sequence);
      queueMicrotask(this.#flushSoon);
    }
    writeCall(this.#report, 8 + (waiting - 1) * callBytes, call, tag);
    if (8 + waiting * callBytes === this.#report.byteLength) this.#flush();
    if (sequence > this.#hubCalls) this.#hubClosed();
    return sequence;
  }

  /** Asks rank 0 to explain, to everybody, why a collective does not end. */
  stuck(sequence: number, seconds: number): void {
    this.#link.send(MessageType.stuck, Buffer.concat([number(sequence), number(seconds)]));
  }

  /** Tells everybody why this rank can't go on. */
  tell(failure: GroupFailure): void {
    this.#flush();
    this.#link.send(MessageType.failure, asJson(failure));
  }

  split(request: SplitRequest): Promise<SplitAnswer> {
    return new Promise((resolve, reject) => {
      if (this.#failure) return reject(this.#failure);
      this.#splits.push({ resolve, reject });
      this.#link.send(MessageType.split, asJson(request));
    });
  }

  /**
   * Tells everybody that this rank makes no more calls. NCCL's own end waits for the other ranks: who still needs this one must hear
   * of it before that, and give its group up.
   */
  leave(): void {
    if (this.#closing) return;
    this.#closing = true;
    this.#flush();
    this.#link.send(MessageType.goodbye, number(this.#calls));
    this.#hub?.leave(this.#calls);
  }

  async close(): Promise<void> {
    this.leave();
    // What was sent locally arrives in a later microtask.
    await null;
    if (this.#hub) await this.#hub.close();
    await this.#link.close();
  }

  /** Tells rank 0 the text of a tag, before the first report that has its number. */
  #introduce(tag: string): number {
    const number = tagNumber(tag);
    this.#tags.set(tag, number);
    const bytes = Buffer.concat([Buffer.alloc(4), utf8(tag)]);
    bytes.writeUInt32BE(number);
    this.#link.send(MessageType.tag, bytes);
    return number;
  }

  #flush(): void {
    const waiting = this.#calls - this.#reported;
    if (waiting === 0) return;
    this.#reported = this.#calls;
    this.#link.send(MessageType.report, new Uint8Array(this.#report.buffer, 0, 8 + waiting * callBytes));
  }

  #hear(type: number, payload: Buffer): void {
    switch (type) {
      case MessageType.agreed:
        this.#listener.agreed(payload.readDoubleBE(0));
        break;
      case MessageType.failure:
        this.#fail(json<GroupFailure>(payload));
        break;
      case MessageType.goodbye:
        this.#hubCalls = payload.readDoubleBE(0);
        if (this.#calls > this.#hubCalls) this.#hubClosed();
        break;
      case MessageType.where:
        this.#link.send(MessageType.site, utf8(this.#sites.describe(payload.readDoubleBE(0))));
        break;
      case MessageType.splitAnswer:
        this.#splits.shift()?.resolve(json<SplitAnswer>(payload));
        break;
    }
  }

  #end(reason: string): void {
    if (this.#hubCalls === Number.POSITIVE_INFINITY) this.#fail({ kind: 'peer_lost', peer: 0, text: reason, lost: true });
  }

  #hubClosed(): void {
    this.#fail({ kind: 'peer_lost', peer: 0, text: 'it has closed its communicator' });
  }

  #fail(failure: GroupFailure): void {
    if (this.#failure || this.#closing) return;
    this.#failure = failure;
    for (const { reject } of this.#splits.splice(0)) reject(failure);
    this.#listener.failed(failure);
  }
}

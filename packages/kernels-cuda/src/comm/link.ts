import type { Socket } from 'node:net';
import { FrameReader, frame } from './frames.js';

export interface LinkListener {
  message(type: number, payload: Buffer): void;
  /** The last call: the other side has gone. */
  ended(reason: string): void;
}

/** Carries messages to one other side, in order. What arrives while nobody listens is kept. */
export interface Link {
  send(type: number, payload?: Uint8Array): void;
  listen(listener: LinkListener | null): void;
  /** Whether the link keeps the process alive. */
  hold(held: boolean): void;
  /** After what was sent. */
  close(): Promise<void>;
}

const nothing = new Uint8Array(0);
const closeMs = 1000;

abstract class Inbox {
  #listener: LinkListener | null = null;
  #kept: [number, Buffer][] = [];
  #end: string | null = null;

  listen(listener: LinkListener | null): void {
    this.#listener = listener;
    while (this.#listener && this.#kept.length > 0) this.#listener.message(...this.#kept.shift()!);
    if (this.#listener && this.#end !== null) this.#listener.ended(this.#end);
  }

  protected arrive(type: number, payload: Buffer): void {
    if (this.#listener) this.#listener.message(type, payload);
    else this.#kept.push([type, Buffer.from(payload)]);
  }

  protected finish(reason: string): void {
    if (this.#end !== null) return;
    this.#end = reason;
    this.#listener?.ended(reason);
  }
}

export class SocketLink extends Inbox implements Link {
  readonly #socket: Socket;
  readonly #closed: Promise<void>;

  constructor(socket: Socket) {
    super();
    this.#socket = socket;
    socket.setNoDelay(true);
    // A host that vanishes says nothing: the system asks after five seconds, then every second.
    socket.setKeepAlive(true, 5000);
    const reader = new FrameReader();
    let reason = 'its process has ended';
    socket.on('data', (chunk) => {
      if (reader.push(chunk, (type, payload) => this.arrive(type, payload))) return;
      reason = 'it answered something else';
      socket.destroy();
    });
    socket.on('error', ({ message, code }: NodeJS.ErrnoException) => {
      if (code !== 'EPIPE' && code !== 'ECONNRESET') reason = `the connection broke (${message})`;
    });
    this.#closed = new Promise((resolve) =>
      socket.on('close', () => {
        this.finish(reason);
        resolve();
      }),
    );
  }

  get remoteAddress(): string {
    return this.#socket.remoteAddress ?? '';
  }

  send(type: number, payload: Uint8Array = nothing): void {
    if (this.#socket.writable) this.#socket.write(frame(type, payload));
  }

  hold(held: boolean): void {
    if (held) this.#socket.ref();
    else this.#socket.unref();
  }

  close(): Promise<void> {
    this.#socket.ref();
    this.#socket.end();
    const late = setTimeout(() => this.#socket.destroy(), closeMs);
    return this.#closed.finally(() => clearTimeout(late));
  }
}

/** Both ends of a link within this process. */
export function localLinks(): [Link, Link] {
  const [a, b] = [new LocalLink(), new LocalLink()];
  a.other = b;
  b.other = a;
  return [a, b];
}

class LocalLink extends Inbox implements Link {
  other: LocalLink | undefined;

  send(type: number, payload: Uint8Array = nothing): void {
    const { other } = this;
    const copy = Buffer.from(payload);
    queueMicrotask(() => other?.arrive(type, copy));
  }

  hold(): void {}

  async close(): Promise<void> {
    this.other = undefined;
  }
}

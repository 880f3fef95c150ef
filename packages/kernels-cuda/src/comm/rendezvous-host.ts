import { once } from 'node:events';
import { createServer, type Server } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { RendezvousError } from '@deepspeed-ts/core';
import { json, MessageType, text, utf8 } from './frames.js';
import { type Link, SocketLink } from './link.js';
import type { Identity, Meeting, MeetingPlace } from './rendezvous.js';

interface Caller {
  readonly link: SocketLink;
  identity: Identity | null;
  ready: boolean;
}

/** After a refusal rank 0 stays this long to tell latecomers the reason. */
const farewellMs = 2000;

/** Rank 0 of a rendezvous: listens at MASTER_PORT until all ranks have come and are ready. */
export class Host implements Meeting {
  readonly refusal: Promise<never>;
  readonly #identity: Identity;
  readonly #place: MeetingPlace;
  readonly #makeId: () => Uint8Array;
  readonly #callers = new Set<Caller>();
  #server: Server | undefined;
  #uniqueId = new Uint8Array(0);
  #refused = '';
  #refuse: (error: unknown) => void = () => {};
  /** Called when a caller has made a step. */
  #step: () => void = () => {};

  constructor(identity: Identity, place: MeetingPlace, makeId: () => Uint8Array) {
    this.#identity = identity;
    this.#place = place;
    this.#makeId = makeId;
    this.refusal = new Promise((_, reject) => {
      this.#refuse = reject;
    });
    this.refusal.catch(() => {});
  }

  get uniqueId(): Uint8Array {
    return this.#uniqueId;
  }

  /** By rank, from rank 1. */
  get links(): readonly Link[] {
    return this.#guests().map(({ link }) => link);
  }

  get hosts(): readonly string[] {
    return ['', ...this.#guests().map(({ link }) => (isLoopback(link.remoteAddress) ? '' : link.remoteAddress))];
  }

  /** Resolves when all ranks have come. */
  async open(server?: Server): Promise<Host> {
    this.#server = server ?? (await this.#listen());
    this.#server.on('connection', (socket) => this.#answer(new SocketLink(socket)));
    const { timeoutMs } = this.#place;
    if (this.#identity.problem) void this.#turnAway(`${name(this.#identity)} can't take part: ${this.#identity.problem}`);
    await this.#until(
      () => this.#missing().length === 0,
      timeoutMs,
      () => this.#absent(),
    );
    try {
      this.#uniqueId = new Uint8Array(this.#makeId());
    } catch (error) {
      void this.#turnAway((error as Error).message);
      await this.refusal;
    }
    this.#tell(MessageType.table, this.#uniqueId);
    return this;
  }

  async conclude(problem: string): Promise<void> {
    if (problem) {
      void this.#turnAway(`${name(this.#identity)}: ${problem}`);
      await this.refusal;
    }
    const all = (): boolean => this.#guests().every(({ ready }) => ready);
    await this.#until(all, this.#place.timeoutMs, () => 'not every rank could connect its GPU to the others in time');
    for (const { link } of this.#guests()) link.listen(null);
    this.#tell(MessageType.go);
    for (const caller of this.#callers) if (!caller.identity) void caller.link.close();
    this.#closeServer();
  }

  async #listen(): Promise<Server> {
    const { address, port } = this.#place;
    const server = createServer();
    try {
      // The name may be mapped to loopback here, or belong to an address translator in front of this host: listen everywhere.
      server.listen(port, isLoopback(address) ? address : undefined);
      await once(server, 'listening');
      return server;
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      const reason =
        code === 'EADDRINUSE'
          ? 'Address already in use. Another process (an earlier run, perhaps) holds it: stop that, or choose another MASTER_PORT.'
          : message;
      throw new RendezvousError(0, `rank 0 can't listen at ${address}:${port}: ${reason}`);
    }
  }

  async #until(condition: () => boolean, milliseconds: number, late: () => string): Promise<void> {
    const timer = setTimeout(() => void this.#turnAway(late()), milliseconds);
    const reached = new Promise<void>((resolve) => {
      this.#step = () => {
        if (condition()) resolve();
      };
      this.#step();
    });
    try {
      await Promise.race([reached, this.refusal]);
    } finally {
      clearTimeout(timer);
    }
  }

  #answer(link: SocketLink): void {
    const caller: Caller = { link, identity: null, ready: false };
    this.#callers.add(caller);
    link.listen({
      message: (type, payload) => {
        if (type === MessageType.hello && !caller.identity) this.#admit(caller, payload);
        if (type === MessageType.ready) this.#ready(caller, text(payload));
      },
      ended: () => {
        this.#callers.delete(caller);
        if (caller.identity && !this.#refused) void this.#turnAway(`${name(caller.identity)} ended before all ranks were connected`);
      },
    });
  }

  #admit(caller: Caller, payload: Buffer): void {
    const { link } = caller;
    const identity = json<Identity>(payload);
    const own = this.#identity;
    const sendAway = (reason: string): void => {
      link.send(MessageType.refused, utf8(reason));
      void link.close();
    };
    if (identity.job !== own.job) {
      sendAway(
        `rank 0 at ${this.#place.address}:${this.#place.port} belongs to another job (${own.job}, not ${identity.job}): choose another MASTER_PORT`,
      );
      return;
    }
    if (this.#refused) {
      sendAway(this.#refused);
      return;
    }
    link.send(MessageType.welcome);
    const problem = this.#objection(identity);
    // Known from here on, so that it hears the reason too.
    caller.identity = identity;
    if (problem) void this.#turnAway(problem);
    else this.#step();
  }

  #objection(hello: Identity): string {
    const own = this.#identity;
    const others = [own, ...this.#guests().map(({ identity }) => identity!)];
    if (hello.version !== own.version)
      return `${name(hello)} runs version ${hello.version} of @deepspeed-ts/kernels-cuda, rank 0 version ${own.version}: install the same version everywhere`;
    if (hello.size !== own.size)
      return `ranks disagree about the world size: rank 0 has WORLD_SIZE=${own.size}, ${name(hello)} has ${hello.size}`;
    if (hello.rank <= 0 || hello.rank >= own.size)
      return `${name(hello)} is not a rank of a world of ${own.size}${hello.rank === 0 ? ' twice: there is one rank 0 already' : ''}`;
    const twin = others.find(({ rank }) => rank === hello.rank);
    if (twin)
      return `two processes say that they are rank ${hello.rank}: ${name(twin)} and ${name(hello)}. Give every process its own RANK.`;
    if (hello.problem) return `${name(hello)} can't take part: ${hello.problem}`;
    const sharer = others.find(({ gpu }) => gpu.uuid === hello.gpu.uuid);
    if (sharer)
      return (
        `${name(sharer)} and ${name(hello)} use the same GPU (${hello.gpu.name}, ${hello.gpu.uuid}): give each process its own, through ` +
        'LOCAL_RANK or CUDA_VISIBLE_DEVICES, or start fewer processes'
      );
    return '';
  }

  #ready(caller: Caller, problem: string): void {
    caller.ready = true;
    if (problem) void this.#turnAway(`${name(caller.identity!)}: ${problem}`);
    else this.#step();
  }

  /** Gives up and tells everybody why: those who are there, and for a moment those who still come. Then `refusal` rejects. */
  async #turnAway(reason: string): Promise<void> {
    if (this.#refused) return;
    this.#refused = reason;
    this.#tell(MessageType.refused, utf8(reason));
    for (let waited = 0; waited < farewellMs && this.#missing().length > 0; waited += 50) await sleep(50);
    await Promise.all([...this.#callers].map(({ link }) => link.close()));
    this.#closeServer();
    this.#refuse(new RendezvousError(this.#identity.rank, reason));
  }

  #tell(type: number, payload?: Uint8Array): void {
    for (const { link, identity } of this.#callers) if (identity) link.send(type, payload);
  }

  /** One caller of each rank. */
  #guests(): Caller[] {
    const guests: Caller[] = [];
    for (const caller of this.#callers) if (caller.identity) guests[caller.identity.rank] ??= caller;
    return guests.filter((caller) => caller.identity!.rank > 0).sort((a, b) => a.identity!.rank - b.identity!.rank);
  }

  #missing(): number[] {
    const present = new Set(this.#guests().map(({ identity }) => identity!.rank));
    return Array.from({ length: this.#identity.size - 1 }, (_, i) => i + 1).filter((rank) => !present.has(rank));
  }

  #absent(): string {
    const missing = this.#missing();
    const { size } = this.#identity;
    const { address, port, timeoutMs } = this.#place;
    return (
      `${missing.length} of ${size} ranks never came to ${address}:${port} within ${timeoutMs / 1000} s: rank ${missing.join(', ')}. ` +
      `Were they started, with the same MASTER_ADDR and MASTER_PORT, and is WORLD_SIZE=${size} right?`
    );
  }

  #closeServer(): void {
    this.#server?.removeAllListeners('connection');
    this.#server?.close();
  }
}

function name({ rank, host, pid }: Identity): string {
  return `rank ${rank} (${host}, pid ${pid})`;
}

export function isLoopback(address: string): boolean {
  return address === 'localhost' || address === '::1' || /^(::ffff:)?127\./.test(address);
}

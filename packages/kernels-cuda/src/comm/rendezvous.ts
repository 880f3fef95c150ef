import { connect as dial, type Server, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { RendezvousError } from '@deepspeed-ts/core';
import { asJson, MessageType, text, utf8 } from './frames.js';
import { type Link, SocketLink } from './link.js';
import { Host } from './rendezvous-host.js';

/** What a rank says of itself. */
export interface Identity {
  readonly rank: number;
  readonly size: number;
  readonly job: string;
  readonly version: string;
  readonly host: string;
  readonly pid: number;
  readonly gpu: { readonly uuid: string; readonly name: string };
  /** Why this rank can't take part, for everybody to hear; empty: it can. */
  readonly problem: string;
}

export interface MeetingPlace {
  readonly address: string;
  readonly port: number;
  readonly timeoutMs: number;
}

/** All ranks are there and fit together; now each connects its GPU. */
export interface Meeting {
  readonly uniqueId: Uint8Array;
  /** Rejects when another rank could not connect. */
  readonly refusal: Promise<never>;
  /** Says how connecting went here ('' = well) and resolves once it went well everywhere. */
  conclude(problem: string): Promise<void>;
  /** Rank 0: a link to each other rank, by rank. The others: one, to rank 0. */
  readonly links: readonly Link[];
  /** Rank 0: where each rank came from. */
  readonly hosts: readonly string[];
}

/** Rank 0's meeting. `makeId` is called once all ranks have come. */
export function hostMeeting(identity: Identity, place: MeetingPlace, makeId: () => Uint8Array, server?: Server): Promise<Meeting> {
  return new Host(identity, place, makeId).open(server);
}

const welcomeMs = 5000;
/** The host's own timeout comes first, so that its reason (who is missing) reaches the guests. */
const graceMs = 2000;
const retryMs = 50;

/** The other ranks' meeting. */
export async function joinMeeting(identity: Identity, place: MeetingPlace): Promise<Meeting> {
  const { rank } = identity;
  const { address, port, timeoutMs } = place;
  const where = `rank 0 at ${address}:${port}`;
  const deadline = Date.now() + timeoutMs;
  const link = new SocketLink(await call(rank, place, deadline));
  let known = false;
  // The host may be a message ahead.
  const arrived = new Map<number, Buffer>();
  const waiting = new Map<number, (payload: Buffer) => void>();
  let refuse: (reason: unknown) => void = () => {};
  const refusal = new Promise<never>((_, reject) => {
    refuse = reject;
  });
  refusal.catch(() => {});
  const refused = (message: string): void => refuse(new RendezvousError(rank, message));
  const foreign = (detail: string): void =>
    refused(
      `rank ${rank} reached ${address}:${port}, but what listens there is not rank 0 of this program (${detail}). Another program ` +
        'seems to hold the port: choose a free MASTER_PORT.',
    );
  link.listen({
    message(type, payload) {
      known = true;
      if (type === MessageType.refused) return refused(text(payload));
      // What comes after the go-ahead is for the control plane.
      if (type === MessageType.go) link.listen(null);
      arrived.set(type, Buffer.from(payload));
      waiting.get(type)?.(payload);
    },
    ended: (reason) => (known ? refused(`rank ${rank} lost ${where}: ${reason}`) : foreign(reason)),
  });
  const receive = async (type: number, milliseconds: number, late: () => void): Promise<Buffer> => {
    const timer = setTimeout(late, milliseconds);
    try {
      const message = new Promise<Buffer>((resolve) => {
        if (arrived.has(type)) resolve(arrived.get(type)!);
        else waiting.set(type, resolve);
      });
      return await Promise.race([message, refusal]);
    } catch (error) {
      await link.close();
      throw error;
    } finally {
      clearTimeout(timer);
    }
  };
  link.send(MessageType.hello, asJson(identity));
  await receive(MessageType.welcome, Math.min(welcomeMs, deadline - Date.now()), () => foreign('it said nothing'));
  const uniqueId = await receive(MessageType.table, deadline - Date.now() + graceMs, () =>
    refused(`rank ${rank} waited for the other ranks, but ${where} has not said who is missing`),
  );
  return {
    uniqueId: new Uint8Array(uniqueId),
    refusal,
    links: [link],
    hosts: [],
    async conclude(problem) {
      const go = receive(MessageType.go, timeoutMs + graceMs, () => refused(`rank ${rank} waited for the go-ahead of ${where}`));
      link.send(MessageType.ready, utf8(problem));
      await go;
    },
  };
}

/** Ranks start in any order: until the deadline nobody listening yet is no error. */
async function call(rank: number, { address, port, timeoutMs }: MeetingPlace, deadline: number): Promise<Socket> {
  let last = 'none';
  while (Date.now() < deadline) {
    try {
      return await dialOnce(address, port, deadline - Date.now());
    } catch (error) {
      last = (error as Error).message;
    }
    await sleep(retryMs);
  }
  throw new RendezvousError(
    rank,
    `rank ${rank} found no rank 0 at ${address}:${port} within ${timeoutMs / 1000} s (last attempt: ${last}). Is rank 0 running, and are ` +
      'MASTER_ADDR and MASTER_PORT the same on every rank?',
  );
}

function dialOnce(host: string, port: number, milliseconds: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = dial({ host, port, timeout: Math.max(1, milliseconds) });
    const give = (error: Error): void => {
      socket.destroy();
      reject(error);
    };
    socket.once('timeout', () => give(new Error('no answer')));
    socket.once('error', ({ message, code }: NodeJS.ErrnoException) =>
      give(new Error(code === 'ECONNREFUSED' ? `connection refused (${message})` : message)),
    );
    socket.once('connect', () => {
      socket.removeAllListeners();
      socket.setTimeout(0);
      resolve(socket);
    });
  });
}

import { once } from 'node:events';
import { createServer } from 'node:net';
import {
  type Communicator,
  checkReducible,
  checkSlices,
  DisposedError,
  dtypes,
  PeerLostError,
  type ReduceOp,
  ShapeError,
  type Tensor,
  type Work,
  WorldOfOne,
} from '@deepspeed-ts/core';
import { callError, failureError } from '../errors.js';
import type { NativeFailure } from '../native.js';
import { type Call, describeCall } from './call.js';
import type { ControlPlane } from './control-plane.js';
import { CudaWork } from './cuda-work.js';
import type { GroupFailure } from './hub.js';
import { type Listener, type NativeComm, type OpName, opKinds, reduceOps } from './native-comm.js';

/** How a communicator came to be; what its splits need. */
export interface GroupContext {
  readonly native: NativeComm;
  readonly rank: number;
  readonly size: number;
  readonly silenceMs: number;
  /** Makes the group of some of its ranks. */
  meet(
    rank: number,
    size: number,
    address: string,
    port: number,
    name: string,
    server: ReturnType<typeof createServer>,
  ): Promise<Communicator>;
  /** Where this group's rank 0 was reached. */
  readonly address: string;
}

/** After a rank has gone without a word, what was about to end may still do so. */
const graceMs = 300;
/** After rank 0 was asked why a collective does not end. */
const answerMs = 2000;

/**
 * Ranks on GPUs, through NCCL. Collectives run on a stream of their own, ordered with the compute stream by events; a control plane
 * beside it compares the ranks' calls and notices who is lost. See docs/design/communication-cuda.md.
 *
 * NCCL chooses the order of additions, the same one in every run with the same ranks; bf16 and f16 are rounded at each addition. So
 * with two ranks reductions have the bits that core's Communicator promises; with more, all-reduce, and reduce-scatter followed by
 * all-gather, still have the same bits as each other where the tensor is divisible by the ranks. `max` and `min` may drop NaNs.
 */
export class CudaCommunicator implements Communicator {
  readonly rank: number;
  readonly size: number;
  readonly #context: GroupContext;
  readonly #native: NativeComm;
  readonly #group: number;
  readonly #plane: ControlPlane;
  readonly #works: Map<number, CudaWork>;
  readonly #groupEvents: GroupEvents;
  #agreed = 0;
  #p2p = 0;
  #flushing = false;
  /** A rank is gone; nobody here needs it yet. */
  #doom: GroupFailure | null = null;
  #failure: unknown = null;
  #closed: Promise<void> | null = null;
  #splits = 0;
  #watch: NodeJS.Timeout | undefined;
  #asked = 0;

  private constructor(context: GroupContext, group: number, plane: ControlPlane, groupEvents: GroupEvents) {
    this.rank = context.rank;
    this.size = context.size;
    this.#context = context;
    this.#native = context.native;
    this.#group = group;
    this.#plane = plane;
    this.#works = new Map();
    this.#groupEvents = groupEvents;
    groupEvents.listener = (work, failure) => this.#hear(work, failure);
    plane.listen({ agreed: (sequence) => this.#agree(sequence), failed: (failure) => this.#lost(failure) });
    plane.hold(false);
  }

  /** Over a group that NCCL has connected. */
  static over(context: GroupContext, connection: NcclConnection, plane: ControlPlane): CudaCommunicator {
    return new CudaCommunicator(context, connection.group, plane, connection.events);
  }

  allReduce(tensor: Tensor, op: ReduceOp = 'sum', tag = ''): Work {
    checkReducible('allReduce', tensor, op);
    return this.#submit('allReduce', tensor, tensor, tensor.numel, tag, op);
  }

  reduceScatter(output: Tensor, input: Tensor, op: ReduceOp = 'sum', tag = ''): Work {
    checkReducible('reduceScatter', input, op);
    checkSlices('reduceScatter', 'input', input, this.size, output);
    return this.#submit('reduceScatter', input, output, output.numel, tag, op);
  }

  allGather(output: Tensor, input: Tensor, tag = ''): Work {
    checkSlices('allGather', 'output', output, this.size, input);
    return this.#submit('allGather', input, output, input.numel, tag);
  }

  broadcast(tensor: Tensor, root: number, tag = ''): Work {
    this.#checkRank('broadcast', root);
    return this.#submit('broadcast', tensor, tensor, tensor.numel, tag, 'sum', root);
  }

  allToAll(output: Tensor, input: Tensor, tag = ''): Work {
    if (input.numel % this.size !== 0) throw new ShapeError('allToAll', `a multiple of ${this.size} elements`, `${input.numel}`);
    checkSlices('allToAll', 'output', output, 1, input);
    return this.#submit('allToAll', input, output, input.numel / this.size, tag);
  }

  send(tensor: Tensor, to: number): Work {
    this.#checkRank('send', to, true);
    return this.#submit('send', tensor, tensor, tensor.numel, '', 'sum', to);
  }

  recv(tensor: Tensor, from: number): Work {
    this.#checkRank('recv', from, true);
    return this.#submit('recv', tensor, tensor, tensor.numel, '', 'sum', from);
  }

  async barrier(tag = ''): Promise<void> {
    await this.#submit('barrier', null, null, 0, tag).finished();
  }

  async split(color: number, key = this.rank): Promise<Communicator> {
    this.#assertOpen();
    const name = `split ${++this.#splits}`;
    const call = { kind: opKinds.split, dtype: 0, reduce: 0, peer: -1, count: 0, tag: '' };
    if (this.#failure) throw this.#failure;
    if (this.#doom) throw this.#fail(this.#doom, call, this.#plane.report(call, this.split));
    const sequence = this.#plane.report(call, this.split);
    // Whoever comes to lead the new group listens; nobody knows yet who that is.
    const server = createServer().listen(0);
    this.#plane.hold(true);
    try {
      await once(server, 'listening');
      const { port } = server.address() as { port: number };
      const answer = await this.#plane.split({ color, key, port }).catch((failure: GroupFailure) => {
        throw this.#failure ?? this.#fail(failure, call, sequence);
      });
      if (answer.rank !== 0) server.close();
      if (answer.size === 1) {
        server.close();
        return new WorldOfOne();
      }
      const address = answer.leader === this.rank ? '127.0.0.1' : answer.host || this.#context.address;
      return await this.#context.meet(answer.rank, answer.size, address, answer.port, `${name} of colour ${color}`, server);
    } catch (error) {
      server.close();
      throw error;
    } finally {
      this.#plane.hold(this.#works.size > 0);
    }
  }

  /** After what is queued: the stream, the thread and the sockets are given back. Peers that still need this rank get a PeerLostError. */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    this.#flush();
    await Promise.allSettled([...this.#works.values()].map((work) => work.finished()));
    clearInterval(this.#watch);
    this.#plane.leave();
    const closed = this.#groupEvents.next();
    this.#native.close(this.#group);
    await closed;
    await this.#plane.close();
  }

  #submit(
    name: OpName,
    input: Tensor | null,
    output: Tensor | null,
    count: number,
    tag: string,
    reduce: ReduceOp = 'sum',
    peer = -1,
  ): Work {
    this.#assertOpen();
    input?.assertAlive();
    output?.assertAlive();
    const tensors = input && output ? (input === output ? [input] : [input, output]) : [];
    const call: Call = { kind: opKinds[name], dtype: input ? dtypes[input.dtype].code : 0, reduce: reduceOps[reduce], peer, count, tag };
    const together = name !== 'send' && name !== 'recv';
    const blocked = this.#doom && (together || this.#doom.lost || this.#doom.peer === peer);
    if (blocked && !this.#failure) this.#fail(this.#doom!, call, together ? this.#plane.report(call, this[name]) : ++this.#p2p);
    if (this.#failure) return this.#failed(call);
    let id: number;
    try {
      id = this.#native.submit(
        this.#group,
        call.kind,
        call.dtype,
        call.reduce,
        peer,
        count,
        input?.handle ?? 0,
        input?.byteOffset ?? 0,
        input?.byteLength ?? 0,
        output?.handle ?? 0,
        output?.byteOffset ?? 0,
        output?.byteLength ?? 0,
      );
    } catch (error) {
      throw callError(error);
    }
    const work = new CudaWork(this.#owner, id, call, together ? 0 : -++this.#p2p, tensors);
    if (this.#works.size === 0) this.#begin();
    this.#works.set(id, work);
    if (together) work.sequence = this.#plane.report(call, this[name]);
    else if (!this.#flushing) {
      this.#flushing = true;
      queueMicrotask(() => this.#flush());
    }
    return work;
  }

  /** A work of a group that can't go on: it fails, and so does what waits for it. */
  #failed(call: Call): Work {
    const work = new CudaWork(this.#owner, 0, call, 0, []);
    work.fail(this.#failure);
    return work;
  }

  readonly #owner = { order: (work: CudaWork): void => this.#native.wait(this.#group, work.id) };

  #flush(): void {
    this.#flushing = false;
    this.#native.flush(this.#group);
  }

  // ---- how works end -----------------------------------------------------------------------------------------
  #begin(): void {
    this.#plane.hold(true);
    const { silenceMs } = this.#context;
    this.#watch ??= setInterval(() => this.#checkSilence(), Math.max(50, Math.min(1000, silenceMs / 4))).unref();
  }

  #hear(id: number, failure: NativeFailure | null): void {
    if (id === -1) {
      // The loss of a peer comes with a better message over the control plane: it goes first.
      setTimeout(() => this.#adopt(failure!), 2 * graceMs).unref();
      return;
    }
    const work = this.#works.get(id);
    if (failure) this.#adopt(failure);
    if (!work) return;
    work.ranHere = true;
    if (failure) this.#drop(work);
    else if (work.sequence < 0 || work.sequence <= this.#agreed) this.#finish(work);
  }

  #agree(sequence: number): void {
    this.#agreed = sequence;
    for (const work of this.#works.values()) if (work.ranHere && work.sequence <= sequence) this.#finish(work);
  }

  #finish(work: CudaWork): void {
    this.#forget(work);
    work.succeed();
  }

  /** The device has let go of a work that failed. */
  #drop(work: CudaWork): void {
    this.#forget(work);
    if (work.pending) work.fail(this.#failure);
    work.release();
  }

  #forget(work: CudaWork): void {
    this.#works.delete(work.id);
    if (this.#works.size > 0) return;
    clearInterval(this.#watch);
    this.#watch = undefined;
    this.#asked = 0;
    this.#plane.hold(false);
  }

  // ---- failure -----------------------------------------------------------------------------------------------
  /** A failure that this rank found first. */
  #adopt(failure: NativeFailure): void {
    if (this.#failure) return;
    this.#plane.tell({ kind: 'peer_lost', peer: this.rank, text: failure.message });
    const first = this.#oldest();
    const where = first ? ` in ${describeCall(first.call, Math.abs(first.sequence))}` : '';
    this.#failure =
      failure.kind === 'peer_lost' ? new PeerLostError(this.rank, failure.peer, `${failure.message}${where}`) : failureError(failure);
    this.#abort(failure.kind, failure.peer, (this.#failure as Error).message);
  }

  /** The control plane says that the group can't go on. */
  #lost(failure: GroupFailure): void {
    if (this.#failure) return;
    this.#doom = failure;
    if (failure.kind === 'mismatch') {
      this.#fail(failure, null, 0);
      return;
    }
    const give = (): void => {
      const first = this.#oldest();
      if (first && !this.#failure) this.#fail(failure, first.call, Math.abs(first.sequence));
    };
    if (this.#works.size > 0) setTimeout(give, failure.lost ? graceMs : graceMs / 10);
  }

  /** Fails the group; `call` is what this rank was doing. */
  #fail(failure: GroupFailure, call: Call | null, sequence: number): unknown {
    const { kind, peer, text } = failure;
    const what = call ? describeCall(call, sequence) : '';
    let message = text;
    if (kind === 'peer_lost')
      message = peer < 0 ? `rank ${this.rank} in ${what}: ${text}` : `rank ${this.rank} lost rank ${peer} in ${what}: ${text}`;
    this.#failure = failureError({ kind, op: 'collective', rank: this.rank, peer, message });
    this.#abort(kind, peer, message);
    return this.#failure;
  }

  #abort(kind: NativeFailure['kind'], peer: number, message: string): void {
    const poison = [...this.#works.values()].some((work) => work.waited);
    this.#native.fail(this.#group, kind, this.rank, peer, message, poison);
    // What the device is through has let go of its memory; the rest is reported once it is off the device.
    for (const work of [...this.#works.values()]) if (work.ranHere) this.#drop(work);
  }

  #oldest(): CudaWork | undefined {
    return this.#works.values().next().value;
  }

  #checkSilence(): void {
    const first = this.#oldest();
    if (!first || this.#failure) return;
    const waited = Date.now() - first.startedAt;
    const { silenceMs } = this.#context;
    if (waited < silenceMs) return;
    const seconds = silenceMs / 1000;
    if (first.sequence > 0 && this.#asked !== first.id) {
      this.#asked = first.id;
      this.#plane.stuck(first.sequence, seconds);
    } else if (waited > silenceMs + answerMs) {
      const peer = first.sequence > 0 ? 0 : first.call.peer;
      this.#fail(
        { kind: 'peer_lost', peer, text: `it is alive but silent for ${seconds} s (DEEPSPEED_TS_COMM_TIMEOUT)` },
        first.call,
        Math.abs(first.sequence),
      );
    }
  }

  #checkRank(op: string, rank: number, other = false): void {
    if (!Number.isInteger(rank) || rank < 0 || rank >= this.size) throw new ShapeError(op, `a rank from 0 to ${this.size - 1}`, `${rank}`);
    if (other && rank === this.rank) throw new ShapeError(op, 'another rank', `rank ${rank}, which is this one`);
  }

  #assertOpen(): void {
    if (this.#closed) throw new DisposedError('the communicator');
  }
}

/** Hears a group of the addon before and after its communicator does. */
class GroupEvents {
  listener: Listener = () => {};
  #waiting: ((failure: NativeFailure | null) => void)[] = [];

  readonly hear: Listener = (work, failure) => {
    if (work === 0) this.#waiting.shift()?.(failure);
    else this.listener(work, failure);
  };

  /** The next event of the group itself: connected, or closed. */
  next(): Promise<NativeFailure | null> {
    return new Promise((resolve) => this.#waiting.push(resolve));
  }
}

export interface NcclConnection {
  readonly group: number;
  readonly events: GroupEvents;
}

/** Connects this rank's GPU to the others' while `refusal` has not said that another can't. */
export async function connectNccl(
  native: NativeComm,
  uniqueId: Uint8Array,
  rank: number,
  size: number,
  silenceMs: number,
  refusal: Promise<never>,
): Promise<NcclConnection> {
  const events = new GroupEvents();
  const connected = events.next();
  const group = native.open(uniqueId, rank, size, silenceMs, events.hear);
  refusal.catch((error: Error) => native.fail(group, 'rendezvous', rank, -1, error.message, false));
  const failure = await connected;
  if (!failure) return { group, events };
  await closeNccl(native, { group, events });
  throw failureError(failure);
}

/** Gives back a group that has no communicator. */
export async function closeNccl(native: NativeComm, { group, events }: NcclConnection): Promise<void> {
  const closed = events.next();
  native.close(group);
  await closed;
}

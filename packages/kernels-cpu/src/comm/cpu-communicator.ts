import {
  CallSites,
  type Communicator,
  checkReducible,
  checkSlices,
  DisposedError,
  dtypes,
  type ReduceOp,
  ShapeError,
  type Tensor,
  type Work,
  type WorkTiming,
} from '@deepspeed-ts/core';
import { callError, failureError } from '../errors.js';
import { type ConnectedValue, type Listener, type NativeComm, type OpName, opKinds, reduceOps, type SplitValue } from './native-comm.js';

type Outcome = ConnectedValue | SplitValue | WorkTiming | undefined;

interface Pending {
  resolve(value: Outcome): void;
  reject(error: unknown): void;
}

/**
 * Ranks on CPUs: through shared memory between processes of one host (in place when tensors are `shared`), over TCP between
 * hosts. Collectives run on a thread of their own, beside the compute stream. See docs/design/communication.md.
 */
export class CpuCommunicator implements Communicator {
  readonly rank: number;
  readonly size: number;
  readonly timed = true;
  readonly #native: NativeComm;
  readonly #group: number;
  readonly #pending: Map<number, Pending>;
  readonly #sites: CallSites;
  #closed: Promise<void> | null = null;

  private constructor(native: NativeComm, group: number, { rank, size }: ConnectedValue, pending: Map<number, Pending>, sites: CallSites) {
    this.#native = native;
    this.#group = group;
    this.rank = rank;
    this.size = size;
    this.#pending = pending;
    this.#sites = sites;
  }

  /** A communicator over the group that `start` makes. */
  static async open(native: NativeComm, start: (listener: Listener) => number): Promise<CpuCommunicator> {
    const pending = new Map<number, Pending>();
    // Work 0 stands for the group itself: until it is connected, then until it is closed.
    const connected = expect(pending, 0);
    const sites = new CallSites();
    const zero = monotonicZero();
    const group = start((work, failure, value, begun, met, ended) => {
      if (value === 'site') return sites.describe(work);
      const waiting = pending.get(work);
      pending.delete(work);
      if (failure) waiting?.reject(failureError(failure));
      else waiting?.resolve(value ?? { begun: begun + zero, met: met + zero, ended: ended + zero });
      return undefined;
    });
    try {
      return new CpuCommunicator(native, group, (await connected) as ConnectedValue, pending, sites);
    } catch (error) {
      const closed = expect(pending, 0);
      native.close(group);
      await closed;
      throw error;
    }
  }

  allReduce(tensor: Tensor, op: ReduceOp = 'sum', tag?: string): Work {
    checkReducible('allReduce', tensor, op);
    return this.#submit('allReduce', tensor, tensor, tensor.numel, tag, op);
  }

  reduceScatter(output: Tensor, input: Tensor, op: ReduceOp = 'sum', tag?: string): Work {
    checkReducible('reduceScatter', input, op);
    checkSlices('reduceScatter', 'input', input, this.size, output);
    return this.#submit('reduceScatter', input, output, output.numel, tag, op);
  }

  allGather(output: Tensor, input: Tensor, tag?: string): Work {
    checkSlices('allGather', 'output', output, this.size, input);
    return this.#submit('allGather', input, output, input.numel, tag);
  }

  broadcast(tensor: Tensor, root: number, tag?: string): Work {
    this.#checkRank('broadcast', root);
    return this.#submit('broadcast', tensor, tensor, tensor.numel, tag, 'sum', root);
  }

  allToAll(output: Tensor, input: Tensor, tag?: string): Work {
    if (input.numel % this.size !== 0) throw new ShapeError('allToAll', `a multiple of ${this.size} elements`, `${input.numel}`);
    checkSlices('allToAll', 'output', output, 1, input);
    return this.#submit('allToAll', input, output, input.numel / this.size, tag);
  }

  send(tensor: Tensor, to: number): Work {
    this.#checkRank('send', to, true);
    return this.#submit('send', tensor, tensor, tensor.numel, undefined, 'sum', to);
  }

  recv(tensor: Tensor, from: number): Work {
    this.#checkRank('recv', from, true);
    return this.#submit('recv', tensor, tensor, tensor.numel, undefined, 'sum', from);
  }

  async barrier(tag?: string): Promise<void> {
    this.#assertOpen();
    const work = this.#native.submit(this.#group, opKinds.barrier, 0, 0, -1, 0, 0, 0, 0, 0, 0, 0, tag);
    this.#sites.remember(work, this.barrier);
    await expect(this.#pending, work);
  }

  async split(color: number, key = this.rank): Promise<Communicator> {
    this.#assertOpen();
    const work = this.#native.split(this.#group, color, key);
    this.#sites.remember(work, this.split);
    const { mesh } = (await expect(this.#pending, work)) as SplitValue;
    return CpuCommunicator.open(this.#native, (listener) => this.#native.adopt(mesh, listener));
  }

  /** After what is queued: threads, sockets and shared mappings are given back. Peers that still need this rank get a PeerLostError. */
  close(): Promise<void> {
    if (!this.#closed) {
      this.#closed = expect(this.#pending, 0).then(() => undefined);
      this.#native.close(this.#group);
    }
    return this.#closed;
  }

  #submit(name: OpName, input: Tensor, output: Tensor, count: number, tag: string | undefined, reduce: ReduceOp = 'sum', peer = -1): Work {
    this.#assertOpen();
    input.assertAlive();
    output.assertAlive();
    let id: number;
    try {
      id = this.#native.submit(
        this.#group,
        opKinds[name],
        dtypes[input.dtype].code,
        reduceOps[reduce],
        peer,
        count,
        input.handle,
        input.byteOffset,
        input.byteLength,
        output.handle,
        output.byteOffset,
        output.byteLength,
        tag,
      );
    } catch (error) {
      throw callError(error);
    }
    this.#sites.remember(id, this[name]);
    return new CpuWork(() => this.#native.wait(this.#group, id), expect(this.#pending, id), input, output);
  }

  #checkRank(op: string, rank: number, other = false): void {
    if (!Number.isInteger(rank) || rank < 0 || rank >= this.size) throw new ShapeError(op, `a rank from 0 to ${this.size - 1}`, `${rank}`);
    if (other && rank === this.rank) throw new ShapeError(op, 'another rank', `rank ${rank}, which is this one`);
  }

  #assertOpen(): void {
    if (this.#closed) throw new DisposedError('the communicator');
  }
}

/** Holds its tensors' memory until the stream is ordered behind it, or until it has ended. */
class CpuWork implements Work {
  #buffers: Tensor['buffer'][];
  readonly #wait: () => void;
  readonly #ended: Promise<Outcome>;
  #timing: WorkTiming | undefined;

  constructor(wait: () => void, ended: Promise<Outcome>, input: Tensor, output: Tensor) {
    this.#wait = wait;
    this.#ended = ended;
    this.#buffers = [input.buffer.retain(), output.buffer.retain()];
    ended.then(
      (timing) => {
        this.#timing = timing as WorkTiming;
        this.#release();
      },
      () => this.#release(),
    );
  }

  wait(): void {
    this.#wait();
    // What reuses this memory from now on is queued behind the collective.
    this.#release();
  }

  async finished(): Promise<void> {
    await this.#ended;
  }

  timing(): WorkTiming | undefined {
    return this.#timing;
  }

  #release(): void {
    for (const buffer of this.#buffers) buffer.release();
    this.#buffers = [];
  }
}

/** The zero of the system's monotonic clock, as performance.now() counts. */
function monotonicZero(): number {
  // Whoever is interrupted between the two looks at the clock finds it too early: the latest of some is right.
  return Math.max(...Array.from({ length: 8 }, () => performance.now() - Number(process.hrtime.bigint()) / 1e6));
}

function expect(pending: Map<number, Pending>, work: number): Promise<Outcome> {
  const ended = new Promise<Outcome>((resolve, reject) => pending.set(work, { resolve, reject }));
  // Whoever awaits it sees the error; a work that nobody awaits reports through the stream.
  ended.catch(() => {});
  return ended;
}

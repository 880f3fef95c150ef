import {
  type Communicator,
  checkReducible,
  checkSlices,
  DisposedError,
  dtypes,
  type ReduceOp,
  ShapeError,
  type Tensor,
  type Work,
} from '@deepspeed-ts/core';
import { callError, failureError } from '../errors.js';
import { type ConnectedValue, type Listener, type NativeComm, type OpName, opKinds, reduceOps, type SplitValue } from './native-comm.js';

interface Pending {
  resolve(value: ConnectedValue | SplitValue | undefined): void;
  reject(error: unknown): void;
}

/**
 * Ranks on CPUs: through shared memory between processes of one host (in place when tensors are `shared`), over TCP between
 * hosts. Collectives run on a thread of their own, beside the compute stream. See docs/design/communication.md.
 */
export class CpuCommunicator implements Communicator {
  readonly rank: number;
  readonly size: number;
  readonly #native: NativeComm;
  readonly #group: number;
  readonly #pending: Map<number, Pending>;
  #closed: Promise<void> | null = null;

  private constructor(native: NativeComm, group: number, { rank, size }: ConnectedValue, pending: Map<number, Pending>) {
    this.#native = native;
    this.#group = group;
    this.rank = rank;
    this.size = size;
    this.#pending = pending;
  }

  /** A communicator over the group that `start` makes. */
  static async open(native: NativeComm, start: (listener: Listener) => number): Promise<CpuCommunicator> {
    const pending = new Map<number, Pending>();
    // Work 0 stands for the group itself: until it is connected, then until it is closed.
    const connected = expect(pending, 0);
    const group = start((work, failure, value) => {
      const waiting = pending.get(work);
      pending.delete(work);
      if (failure) waiting?.reject(failureError(failure));
      else waiting?.resolve(value);
    });
    try {
      return new CpuCommunicator(native, group, (await connected)!, pending);
    } catch (error) {
      const closed = expect(pending, 0);
      native.close(group);
      await closed;
      throw error;
    }
  }

  allReduce(tensor: Tensor, op: ReduceOp = 'sum'): Work {
    checkReducible('allReduce', tensor, op);
    return this.#submit('allReduce', tensor, tensor, tensor.numel, op);
  }

  reduceScatter(output: Tensor, input: Tensor, op: ReduceOp = 'sum'): Work {
    checkReducible('reduceScatter', input, op);
    checkSlices('reduceScatter', 'input', input, this.size, output);
    return this.#submit('reduceScatter', input, output, output.numel, op);
  }

  allGather(output: Tensor, input: Tensor): Work {
    checkSlices('allGather', 'output', output, this.size, input);
    return this.#submit('allGather', input, output, input.numel);
  }

  broadcast(tensor: Tensor, root: number): Work {
    this.#checkRank('broadcast', root);
    return this.#submit('broadcast', tensor, tensor, tensor.numel, 'sum', root);
  }

  allToAll(output: Tensor, input: Tensor): Work {
    if (input.numel % this.size !== 0) throw new ShapeError('allToAll', `a multiple of ${this.size} elements`, `${input.numel}`);
    checkSlices('allToAll', 'output', output, 1, input);
    return this.#submit('allToAll', input, output, input.numel / this.size);
  }

  send(tensor: Tensor, to: number): Work {
    this.#checkRank('send', to, true);
    return this.#submit('send', tensor, tensor, tensor.numel, 'sum', to);
  }

  recv(tensor: Tensor, from: number): Work {
    this.#checkRank('recv', from, true);
    return this.#submit('recv', tensor, tensor, tensor.numel, 'sum', from);
  }

  async barrier(): Promise<void> {
    this.#assertOpen();
    const work = this.#native.submit(this.#group, opKinds.barrier, 0, 0, -1, 0, 0, 0, 0, 0, 0, 0);
    await expect(this.#pending, work);
  }

  async split(color: number, key = this.rank): Promise<Communicator> {
    this.#assertOpen();
    const work = this.#native.split(this.#group, color, key);
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

  #submit(name: OpName, input: Tensor, output: Tensor, count: number, reduce: ReduceOp = 'sum', peer = -1): Work {
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
      );
    } catch (error) {
      throw callError(error);
    }
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
  readonly #ended: Promise<unknown>;

  constructor(wait: () => void, ended: Promise<unknown>, input: Tensor, output: Tensor) {
    this.#wait = wait;
    this.#ended = ended;
    this.#buffers = [input.buffer.retain(), output.buffer.retain()];
    ended.then(
      () => this.#release(),
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

  #release(): void {
    for (const buffer of this.#buffers) buffer.release();
    this.#buffers = [];
  }
}

function expect(pending: Map<number, Pending>, work: number): Promise<ConnectedValue | SplitValue | undefined> {
  const ended = new Promise<ConnectedValue | SplitValue | undefined>((resolve, reject) => pending.set(work, { resolve, reject }));
  // Whoever awaits it sees the error; a work that nobody awaits reports through the stream.
  ended.catch(() => {});
  return ended;
}

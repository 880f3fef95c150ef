import type { Communicator, ReduceOp, Tensor, Work, WorkTiming } from '@deepspeed-ts/core';
import type { CollectiveName, CollectiveRecord } from './collective-record.js';

/** Who wants to know of collectives. */
export interface CollectiveListener {
  seen(record: CollectiveRecord): void;
}

/**
 * A communicator that tells of each collective when it happened. Where the backend takes the times itself nothing is slowed down; elsewhere
 * a collective is timed by waiting for it, as DeepSpeed does, which takes away its overlap with compute.
 */
export class ObservedCommunicator implements Communicator {
  readonly rank: number;
  readonly size: number;
  readonly #inner: Communicator;
  readonly #listener: CollectiveListener;
  readonly #ofAll: boolean;
  readonly #pending = new Set<Promise<void>>();

  constructor(inner: Communicator, listener: CollectiveListener, ofAll = true) {
    this.#inner = inner;
    this.#listener = listener;
    this.#ofAll = ofAll;
    this.rank = inner.rank;
    this.size = inner.size;
  }

  get timed(): boolean {
    return this.#inner.timed ?? false;
  }

  /** Without anybody looking on. */
  get unobserved(): Communicator {
    return this.#inner;
  }

  /** Resolves once all collectives so far have ended and been told of. */
  async settled(): Promise<void> {
    await Promise.all(this.#pending);
  }

  allReduce(tensor: Tensor, op?: ReduceOp, tag?: string): Work {
    return this.#watch('all_reduce', tensor, tensor, tag, () => this.#inner.allReduce(tensor, op, tag));
  }

  reduceScatter(output: Tensor, input: Tensor, op?: ReduceOp, tag?: string): Work {
    return this.#watch('reduce_scatter', input, output, tag, () => this.#inner.reduceScatter(output, input, op, tag));
  }

  allGather(output: Tensor, input: Tensor, tag?: string): Work {
    return this.#watch('all_gather', output, output, tag, () => this.#inner.allGather(output, input, tag));
  }

  broadcast(tensor: Tensor, root: number, tag?: string): Work {
    return this.#watch('broadcast', tensor, tensor, tag, () => this.#inner.broadcast(tensor, root, tag));
  }

  allToAll(output: Tensor, input: Tensor, tag?: string): Work {
    return this.#watch('all_to_all', input, output, tag, () => this.#inner.allToAll(output, input, tag));
  }

  send(tensor: Tensor, to: number): Work {
    return this.#watch('send', tensor, undefined, undefined, () => this.#inner.send(tensor, to));
  }

  recv(tensor: Tensor, from: number): Work {
    return this.#watch('recv', tensor, undefined, undefined, () => this.#inner.recv(tensor, from));
  }

  async barrier(tag?: string): Promise<void> {
    const begun = performance.now();
    await this.#inner.barrier(tag);
    this.#tell('barrier', 0, tag, { begun, met: begun, ended: performance.now() });
  }

  async split(color: number, key?: number): Promise<Communicator> {
    const group = await this.#inner.split(color, key);
    return group.size === 1 ? group : new ObservedCommunicator(group, this.#listener, false);
  }

  close(): Promise<void> {
    return this.#inner.close();
  }

  /** @param probe - can be read to wait for the collective; without one it is taken to last until it has finished */
  #watch(op: CollectiveName, message: Tensor, probe: Tensor | undefined, tag: string | undefined, call: () => Work): Work {
    const bytes = message.byteLength;
    const blocking = !this.timed && probe !== undefined && probe.numel > 0;
    if (blocking) wait(probe);
    const begun = performance.now();
    const work = call();
    if (blocking) {
      work.wait();
      wait(probe);
      this.#tell(op, bytes, tag, { begun, met: begun, ended: performance.now() });
      return { wait() {}, finished: () => work.finished() };
    }
    const told = work.finished().then(
      () => this.#tell(op, bytes, tag, work.timing?.() ?? { begun, met: begun, ended: performance.now() }),
      () => {},
    );
    this.#pending.add(told);
    void told.finally(() => this.#pending.delete(told));
    return work;
  }

  #tell(op: CollectiveName, bytes: number, tag: string | undefined, timing: WorkTiming): void {
    this.#listener.seen({ op, tag, bytes, ranks: this.size, ofAll: this.#ofAll, timing });
  }
}

/** Until the device has come to here. */
function wait(tensor: Tensor): void {
  tensor.device.backend.readSync(tensor.handle, tensor.byteOffset, 1);
}

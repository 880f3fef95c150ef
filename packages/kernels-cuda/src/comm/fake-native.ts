import { randomBytes } from 'node:crypto';
import { ReferenceBackend } from '@deepspeed-ts/core';
import type { NativeFailure } from '../native.js';
import type { Listener, NativeComm } from './native-comm.js';

/** Memory and kernels of a device that is none. Like the dispatcher it answers nothing more once a lost group has poisoned it. */
export class FakeDevice extends ReferenceBackend {
  poison: NativeFailure | null = null;
  /** A kernel has failed: what is queued after it is skipped. */
  broken = false;
  /** Collectives don't end before their group fails. */
  hangs = false;

  override async read(handle: number, byteOffset: number, byteLength: number): Promise<Uint8Array> {
    if (this.poison) throw this.poison;
    return super.read(handle, byteOffset, byteLength);
  }
}

interface FakeGroup {
  readonly listener: Listener;
  readonly works: Set<number>;
  failure: NativeFailure | null;
}

/**
 * The addon's communicator without NCCL: collectives end at once and move nothing. Rendezvous and control plane are real, so they are
 * tested where there is no GPU.
 */
export function fakeNative(gpu: string, device: FakeDevice = new FakeDevice(), problem: string | null = null): NativeComm {
  const groups = new Map<number, FakeGroup>();
  let last = 0;
  const soon = (call: () => void): void => void setImmediate(call);
  return {
    problem: () => problem,
    gpu: () => ({ uuid: gpu, name: 'fake', index: 0 }),
    uniqueId: () => new Uint8Array(randomBytes(128)),
    open(_uniqueId, _rank, _size, _silenceMs, listener) {
      groups.set(++last, { listener, works: new Set(), failure: null });
      soon(() => listener(0, null));
      return last;
    },
    submit(id) {
      const group = groups.get(id)!;
      const work = ++last;
      group.works.add(work);
      if (device.broken) group.failure ??= failureOf('peer_lost', 0, 0, 'its own computation has failed');
      soon(() => {
        if ((!device.hangs || group.failure) && group.works.delete(work)) group.listener(work, group.failure);
      });
      return work;
    },
    flush() {},
    wait(id) {
      device.poison ??= groups.get(id)?.failure ?? null;
    },
    fail(id, kind, rank, peer, message, poison) {
      const group = groups.get(id);
      if (!group || group.failure) return;
      group.failure = failureOf(kind, rank, peer, message);
      if (poison) device.poison ??= group.failure;
      if (!device.hangs) return;
      soon(() => {
        for (const work of group.works) group.listener(work, group.failure);
        group.works.clear();
      });
    },
    close(id) {
      const group = groups.get(id);
      groups.delete(id);
      soon(() => soon(() => group?.listener(0, null)));
    },
  };
}

function failureOf(kind: NativeFailure['kind'], rank: number, peer: number, message: string): NativeFailure {
  return Object.assign(new Error(message), { kind, op: 'collective', rank, peer });
}

import { randomBytes } from 'node:crypto';
import { ReferenceBackend } from '@deepspeed-ts/core';
import type { NativeFailure } from '../native.js';
import type { Listener, NativeComm } from './native-comm.js';

/** Memory and kernels of a device that is none. Like the dispatcher it answers nothing more once a lost group has poisoned it. */
export class FakeDevice extends ReferenceBackend {
  poison: NativeFailure | null = null;

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
      soon(() => {
        if (group.works.delete(work)) group.listener(work, group.failure);
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
      group.failure = Object.assign(new Error(message), { kind, op: 'collective', rank, peer });
      if (poison) device.poison ??= group.failure;
    },
    close(id) {
      const group = groups.get(id);
      groups.delete(id);
      soon(() => soon(() => group?.listener(0, null)));
    },
  };
}

import { Device } from '@deepspeed-ts/core';
import { failureError } from '../errors.js';
import { connectOver } from './connect.js';
import { FakeDevice, fakeNative } from './fake-native.js';

class Backend extends FakeDevice {
  override async read(handle: number, byteOffset: number, byteLength: number): Promise<Uint8Array> {
    try {
      return await super.read(handle, byteOffset, byteLength);
    } catch (error) {
      throw failureError(error);
    }
  }
}

/** Opens a rank whose control plane is real and whose collectives are not. */
export default async function openRank() {
  const backend = new Backend();
  const communicator = await connectOver(fakeNative(`gpu ${process.env.RANK}`, backend), '0', {}, () => {});
  return { communicator, device: new Device(backend) };
}

import { Device } from '@deepspeed-ts/core';
import { cpuBackend } from '../index.js';
import { connect } from './connect.js';

/** Opens a rank for the communicator contract's processes. */
export default async function openRank() {
  return { communicator: await connect(), device: new Device(cpuBackend()) };
}

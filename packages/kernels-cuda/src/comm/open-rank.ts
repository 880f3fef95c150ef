import { Device } from '@deepspeed-ts/core';
import { cudaBackend } from '../index.js';
import { connect } from './connect.js';

/** Opens a rank for the communicator contract's processes. */
export default async function openRank() {
  const device = new Device(cudaBackend());
  return { communicator: await connect(), device };
}

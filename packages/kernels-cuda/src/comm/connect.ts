import type { Server } from 'node:net';
import { hostname } from 'node:os';
import {
  type Communicator,
  environmentNumber,
  placeFromEnvironment,
  RendezvousError,
  WorldOfOne,
  type WorldPlace,
} from '@deepspeed-ts/core';
import type { CudaBackend } from '../cuda-backend.js';
import { callError } from '../errors.js';
import { loadNative } from '../load.js';
import { ControlPlane } from './control-plane.js';
import { CudaCommunicator, closeNccl, connectNccl, type GroupContext, type NcclConnection } from './cuda-communicator.js';
import { Hub } from './hub.js';
import { localLinks } from './link.js';
import type { NativeComm } from './native-comm.js';
import { hostMeeting, type Identity, joinMeeting, type Meeting } from './rendezvous.js';

export interface ConnectOptions extends Partial<WorldPlace> {
  /** The GPU whose tensors are exchanged. Default: the one that `cudaBackend()` has opened, else the one of LOCAL_RANK. */
  readonly backend?: CudaBackend;
  /** Milliseconds for all ranks to arrive. Default: DEEPSPEED_TS_RENDEZVOUS_TIMEOUT, else one minute. */
  readonly timeoutMs?: number;
  /** Milliseconds that a collective may take. Default: DEEPSPEED_TS_COMM_TIMEOUT, else ten minutes. */
  readonly silenceMs?: number;
}

/**
 * Joins the ranks of this run, each with a GPU of its own, into one communicator over NCCL. What `options` leaves out comes from RANK,
 * WORLD_SIZE, MASTER_ADDR and MASTER_PORT, or from what srun and mpirun set; without any of these it is a world of one.
 *
 * @throws RendezvousError on every rank when the ranks can't form this world; it says what is wrong and what helps
 */
export async function connect(options: ConnectOptions = {}): Promise<Communicator> {
  const place = completePlace(options);
  if (place.size === 1) return new WorldOfOne();
  const native = options.backend?.native ?? loadNative();
  try {
    return await connectOver(native.comm, native.version, options, () => native.open(place.localRank));
  } catch (error) {
    throw callError(error);
  }
}

/** {@link connect} through the given functions of the addon. `openDevice` opens the default GPU if none is open. */
export async function connectOver(
  native: NativeComm,
  version: string,
  options: ConnectOptions,
  openDevice: () => void,
): Promise<Communicator> {
  const env = process.env;
  const place = completePlace(options);
  const { rank, size, job, masterAddr, masterPort } = place;
  const timeoutMs = options.timeoutMs ?? environmentNumber(env, 'DEEPSPEED_TS_RENDEZVOUS_TIMEOUT', rank, 60_000);
  const silenceMs = options.silenceMs ?? environmentNumber(env, 'DEEPSPEED_TS_COMM_TIMEOUT', rank, 600_000);
  const identity: Omit<Identity, 'rank' | 'size' | 'job'> = {
    version,
    host: hostname(),
    pid: process.pid,
    gpu: gpuOf(native, openDevice),
    problem: native.problem() ?? '',
  };

  const meet = async (rank: number, size: number, address: string, port: number, job: string, server?: Server): Promise<Communicator> => {
    const self = { ...identity, rank, size, job };
    const where = { address, port, timeoutMs };
    const meeting = await (rank === 0 ? hostMeeting(self, where, () => native.uniqueId(), server) : joinMeeting(self, where));
    const connection = await connectGpu(native, meeting, rank, size, silenceMs);
    const context: GroupContext = {
      native,
      rank,
      size,
      silenceMs,
      address,
      meet: (rank, size, address, port, name, server) => meet(rank, size, address, port, `${job}/${name}`, server),
    };
    return CudaCommunicator.over(context, connection, controlPlane(rank, meeting));
  };
  try {
    return await meet(rank, size, masterAddr, masterPort, job);
  } catch (error) {
    if (error instanceof RendezvousError) throw new RendezvousError(rank, error.message);
    throw error;
  }
}

async function connectGpu(native: NativeComm, meeting: Meeting, rank: number, size: number, silenceMs: number): Promise<NcclConnection> {
  let connection: NcclConnection | undefined;
  try {
    connection = await connectNccl(native, meeting.uniqueId, rank, size, silenceMs, meeting.refusal);
    await meeting.conclude('');
    return connection;
  } catch (error) {
    if (connection) await closeNccl(native, connection);
    // Where another rank's reason came first, that is the one to report.
    else await meeting.conclude((error as Error).message);
    throw error;
  }
}

function controlPlane(rank: number, meeting: Meeting): ControlPlane {
  if (rank > 0) return new ControlPlane(meeting.links[0]!, null);
  const [own, hubs] = localLinks();
  return new ControlPlane(own, new Hub([hubs, ...meeting.links], meeting.hosts));
}

function completePlace(options: ConnectOptions): WorldPlace {
  const given = options.rank !== undefined && options.size !== undefined;
  const base = given ? { localRank: 0, masterAddr: '127.0.0.1', masterPort: 29500, job: '' } : placeFromEnvironment();
  return { ...base, ...options } as WorldPlace;
}

function gpuOf(native: NativeComm, openDevice: () => void): Identity['gpu'] {
  try {
    return native.gpu();
  } catch (error) {
    if ((error as { code?: string }).code !== 'NO_DEVICE') throw error;
    openDevice();
    return native.gpu();
  }
}

import {
  type Communicator,
  environmentNumber,
  placeFromEnvironment,
  RendezvousError,
  WorldOfOne,
  type WorldPlace,
} from '@deepspeed-ts/core';
import { loadNative } from '../load.js';
import { CpuCommunicator } from './cpu-communicator.js';

export interface ConnectOptions extends Partial<WorldPlace> {
  /** Milliseconds for all ranks to arrive. Default: DEEPSPEED_TS_RENDEZVOUS_TIMEOUT, else one minute. */
  readonly timeoutMs?: number;
  /** Milliseconds that a peer may be alive but silent in a collective. Default: DEEPSPEED_TS_COMM_TIMEOUT, else ten minutes. */
  readonly silenceMs?: number;
}

/**
 * Joins the ranks of this run into one communicator. What `options` leaves out comes from RANK, WORLD_SIZE, MASTER_ADDR and
 * MASTER_PORT, or from what srun and mpirun set; without any of these it is a world of one.
 *
 * DEEPSPEED_TS_COMM=tcp makes ranks of one host use TCP as well.
 *
 * @throws RendezvousError on every rank when the ranks can't form this world; it says what is wrong and what helps
 */
export async function connect(options: ConnectOptions = {}): Promise<Communicator> {
  const env = process.env;
  const given = options.rank !== undefined && options.size !== undefined;
  const place = {
    ...(given ? { localRank: 0, masterAddr: '127.0.0.1', masterPort: 29500, job: '' } : placeFromEnvironment(env)),
    ...options,
  };
  const { rank, size } = place as WorldPlace;
  if (size === 1) return new WorldOfOne();
  const world = {
    rank,
    size,
    address: place.masterAddr,
    port: place.masterPort,
    hostId: hostId(env, rank),
    job: place.job,
    rendezvousMs: options.timeoutMs ?? environmentNumber(env, 'DEEPSPEED_TS_RENDEZVOUS_TIMEOUT', rank, 60_000),
    silenceMs: options.silenceMs ?? environmentNumber(env, 'DEEPSPEED_TS_COMM_TIMEOUT', rank, 600_000),
  };
  const { comm } = loadNative();
  try {
    return await CpuCommunicator.open(comm, (listener) => comm.connect(world, listener));
  } catch (error) {
    if (error instanceof RendezvousError) throw new RendezvousError(rank, error.message);
    throw error;
  }
}

/** Ranks whose ids are equal use shared memory. DEEPSPEED_TS_HOST_ID stands in for the machine's own id, for tests. */
function hostId(env: NodeJS.ProcessEnv, rank: number): string {
  const transport = env.DEEPSPEED_TS_COMM ?? 'auto';
  if (transport === 'tcp') return `rank ${rank} alone`;
  if (transport !== 'auto')
    throw new RendezvousError(
      rank,
      `DEEPSPEED_TS_COMM='${transport}' is not a transport: use 'auto' (shared memory within a host, TCP between hosts) or 'tcp'`,
    );
  return env.DEEPSPEED_TS_HOST_ID ?? '';
}

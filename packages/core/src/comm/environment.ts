import { RendezvousError } from '../errors.js';

/** Where a process stands among the processes of a run. */
export interface WorldPlace {
  readonly rank: number;
  readonly size: number;
  readonly localRank: number;
  readonly masterAddr: string;
  readonly masterPort: number;
  /** Tells runs apart that use one port by accident; may be empty. */
  readonly job: string;
}

type Environment = Readonly<Record<string, string | undefined>>;

interface Launcher {
  readonly name: string;
  readonly rank: string;
  readonly size: string;
  readonly localRank: string;
  readonly localSize: string;
  readonly job: readonly string[];
}

/** Who may have started this process, by the variables it sets. */
const launchers: readonly Launcher[] = [
  {
    name: 'the deepspeed launcher',
    rank: 'RANK',
    size: 'WORLD_SIZE',
    localRank: 'LOCAL_RANK',
    localSize: 'LOCAL_WORLD_SIZE',
    job: ['DEEPSPEED_TS_LAUNCH_ID'],
  },
  {
    name: 'srun',
    rank: 'SLURM_PROCID',
    size: 'SLURM_NTASKS',
    localRank: 'SLURM_LOCALID',
    localSize: '',
    job: ['SLURM_JOB_ID', 'SLURM_STEP_ID'],
  },
  {
    name: 'mpirun',
    rank: 'OMPI_COMM_WORLD_RANK',
    size: 'OMPI_COMM_WORLD_SIZE',
    localRank: 'OMPI_COMM_WORLD_LOCAL_RANK',
    localSize: 'OMPI_COMM_WORLD_LOCAL_SIZE',
    job: ['PMIX_NAMESPACE'],
  },
  { name: 'mpiexec', rank: 'PMI_RANK', size: 'PMI_SIZE', localRank: 'MPI_LOCALRANKID', localSize: 'MPI_LOCALNRANKS', job: ['PMI_JOBID'] },
];

/** What DeepSpeed and torch use when nobody says otherwise. */
const defaultPort = 29500;

/**
 * The place of this process from RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT, or from what srun and mpirun set.
 * A process that nobody gave a rank is a world of one.
 *
 * @throws RendezvousError that names the variable which is missing or makes no sense
 */
export function placeFromEnvironment(env: Environment = process.env): WorldPlace {
  const launcher = launchers.find(({ rank }) => env[rank] !== undefined);
  if (!launcher) {
    const size = environmentNumber(env, 'WORLD_SIZE', -1, 1);
    if (size > 1)
      throw new RendezvousError(-1, `WORLD_SIZE=${size}, but RANK is not set: give every process its own RANK from 0 to ${size - 1}`);
    return { rank: 0, size: 1, localRank: 0, masterAddr: '127.0.0.1', masterPort: defaultPort, job: '' };
  }
  const rank = environmentNumber(env, launcher.rank, -1);
  const size = environmentNumber(env, launcher.size, rank);
  if (size < 1) throw new RendezvousError(rank, `${launcher.size}=${size}: a world has at least one rank`);
  if (rank >= size)
    throw new RendezvousError(
      rank,
      `${launcher.rank}=${rank} is not a rank of a world of ${size} (${launcher.size}): ranks go from 0 to ${size - 1}`,
    );
  const masterPort = environmentNumber(env, 'MASTER_PORT', rank, defaultPort);
  if (masterPort < 1 || masterPort > 65535) throw new RendezvousError(rank, `MASTER_PORT=${masterPort} is not a TCP port: use 1 to 65535`);
  return {
    rank,
    size,
    localRank: environmentNumber(env, launcher.localRank, rank, 0),
    masterAddr: masterAddress(env, launcher, rank, size),
    masterPort,
    job: launcher.job
      .map((name) => env[name] ?? '')
      .join('.')
      .replace(/^\.$/, ''),
  };
}

function masterAddress(env: Environment, launcher: Launcher, rank: number, size: number): string {
  if (env.MASTER_ADDR) return env.MASTER_ADDR;
  if (size === 1) return '127.0.0.1';
  const nodes = env.SLURM_STEP_NODELIST ?? env.SLURM_JOB_NODELIST;
  if (launcher.name === 'srun' && nodes) return firstNode(nodes);
  if (launcher.localSize && Number(env[launcher.localSize]) === size) return '127.0.0.1';
  throw new RendezvousError(
    rank,
    `MASTER_ADDR is not set: rank ${rank} of ${size} (started by ${launcher.name}) needs the address of rank 0's host`,
  );
}

/** The first host of a Slurm list: `gpu[07-09,12],login` gives `gpu07`. */
export function firstNode(list: string): string {
  const ranges = /^([^,[]*)\[([^\],-]+)[^\]]*\]([^,]*)/.exec(list);
  return ranges ? `${ranges[1]}${ranges[2]}${ranges[3]}` : list.split(',', 1)[0]!;
}

/** A whole number, not negative. Without `fallback` it must be there. */
export function environmentNumber(env: Environment, name: string, rank: number, fallback?: number): number {
  const text = name ? env[name] : undefined;
  if (text === undefined || text === '') {
    if (fallback !== undefined) return fallback;
    throw new RendezvousError(
      rank,
      `${name} is not set: every process needs RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT; a launcher sets them`,
    );
  }
  if (!/^\d+$/.test(text)) throw new RendezvousError(rank, `${name}='${text}' is not a whole number`);
  return Number(text);
}

/**
 * Names the launch in the environment of every process under it. The reaper finds by it what left its process group, so ranks should not
 * clear it from the environment of processes that they start.
 */
export const LAUNCH_ID = 'DEEPSPEED_TS_LAUNCH_ID';

/** Where the ranks of one launch meet. */
export interface World {
  size: number;
  masterAddr: string;
  masterPort: number;
  launchId: string;
}

/** `base` plus what one rank needs to find its place: DeepSpeed's names, and LOCAL_WORLD_SIZE as torchrun has it. */
export function rankEnvironment(base: NodeJS.ProcessEnv, world: World, rank: number): NodeJS.ProcessEnv {
  const size = String(world.size);
  return {
    ...base,
    RANK: String(rank),
    LOCAL_RANK: String(rank),
    WORLD_SIZE: size,
    LOCAL_SIZE: size,
    LOCAL_WORLD_SIZE: size,
    // One machine: this is node 0 of 1.
    CROSS_RANK: '0',
    CROSS_SIZE: '1',
    MASTER_ADDR: world.masterAddr,
    MASTER_PORT: String(world.masterPort),
    [LAUNCH_ID]: world.launchId,
  };
}

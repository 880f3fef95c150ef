export { type CommunicatorContractOptions, communicatorContract } from './communicator-contract.js';
export type { OpenedRank, OpenRank } from './communicator-scenarios.js';
export { gradientContract, type OpContractOptions, opContract } from './op-contract.js';
export {
  freePort,
  type RankContext,
  type RankError,
  type RankOutcome,
  type RankProgram,
  runWorld,
  type SpawnOptions,
  spawnWorld,
  type World,
} from './spawn-world.js';
export { withDevice } from './with-device.js';

import type { RankContext } from '../spawn-world.js';
import { type FailingArgs, trainUntilFailure } from './failing-rank.js';

/** As a rank of spawnWorld(). */
export default function rank({ args, say }: RankContext<FailingArgs>): Promise<never> {
  return trainUntilFailure({ ...args, say });
}

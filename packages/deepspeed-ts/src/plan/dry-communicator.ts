import { type Communicator, DeepSpeedError, type Work } from '@deepspeed-ts/core';

const done: Work = { wait() {}, async finished() {} };

/** A rank of a world whose other ranks are not there. Collectives take no memory of the allocator, so they do nothing here. */
export class DryCommunicator implements Communicator {
  constructor(
    readonly rank: number,
    readonly size: number,
  ) {}

  allReduce(): Work {
    return done;
  }
  reduceScatter(): Work {
    return done;
  }
  allGather(): Work {
    return done;
  }
  broadcast(): Work {
    return done;
  }
  allToAll(): Work {
    return done;
  }
  send(): Work {
    return done;
  }
  recv(): Work {
    return done;
  }
  async barrier(): Promise<void> {}

  async split(): Promise<Communicator> {
    throw new DeepSpeedError(
      'ERR_PLAN',
      '[plan] a run that splits its ranks into groups cannot be planned yet: who is in which is not known',
    );
  }

  async close(): Promise<void> {}
}

import { type Communicator, copy, launch, type ReduceOp, scale, scope, type Tensor, type Work } from '@deepspeed-ts/core';

const done: Work = { wait() {}, async finished() {} };

/**
 * A rank of a world whose other ranks are taken to hold and send just what this one does. Nothing is exchanged, so one process can
 * see what a rank of any world keeps in memory, on any backend.
 */
export class MirrorCommunicator implements Communicator {
  constructor(
    readonly rank: number,
    readonly size: number,
  ) {}

  allReduce(tensor: Tensor, op: ReduceOp = 'sum'): Work {
    if (op === 'sum') scope(() => launch(copy, [scale(tensor, this.size)], [tensor], {}));
    return done;
  }

  reduceScatter(output: Tensor, input: Tensor, op: ReduceOp = 'sum'): Work {
    scope(() => launch(copy, [input.narrow(this.rank * output.numel, output.numel)], [output], {}));
    return this.allReduce(output, op);
  }

  allGather(output: Tensor, input: Tensor): Work {
    scope(() => {
      for (let r = 0; r < this.size; r++) {
        const slice = output.narrow(r * input.numel, input.numel);
        if (slice.handle !== input.handle || slice.byteOffset !== input.byteOffset) launch(copy, [input], [slice], {});
      }
    });
    return done;
  }

  broadcast(): Work {
    return done;
  }

  allToAll(output: Tensor, input: Tensor): Work {
    const count = input.numel / this.size;
    return scope(() => this.allGather(output, input.narrow(this.rank * count, count)));
  }

  send(): Work {
    return done;
  }

  recv(): Work {
    throw new Error('[recv] what would come cannot be known here');
  }

  async barrier(): Promise<void> {}

  async split(): Promise<Communicator> {
    throw new Error('[split] what the others would answer cannot be known here');
  }

  async close(): Promise<void> {}
}

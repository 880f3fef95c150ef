import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { backward } from '../autograd/backward.js';
import { type CheckpointPhase, type CheckpointPolicy, withCheckpointPolicy } from '../autograd/checkpoint-policy.js';
import { watch } from '../autograd/leaf.js';
import { noGrad } from '../autograd/mode.js';
import { ReferenceBackend } from '../backend/reference-backend.js';
import { add, dropout, gelu, mul, scale } from '../ops/index.js';
import { withRandom } from '../random/context.js';
import { full, tensor } from '../tensor/create.js';
import { Device } from '../tensor/device.js';
import { scope } from '../tensor/scope.js';
import type { Tensor } from '../tensor/tensor.js';
import { throughBlocks } from './blocks.js';
import { Linear } from './layers.js';
import { LocalStore } from './local-store.js';
import { Module } from './module.js';

const BLOCKS = 5;
const WIDTH = 6;
const ROWS = 4;
/** Bytes of one activation. */
const X = 4 * ROWS * WIDTH;

let device: Device;
beforeEach(() => {
  device = new Device(new ReferenceBackend());
});
afterEach(() => {
  expect(device.describeLive(), 'buffers alive at the end').toEqual([]);
});

/** Saves several activations of the size of its input. */
class Block extends Module<[Tensor, Tensor?, Tensor?], Tensor> {
  readonly up = new Linear(WIDTH, WIDTH);
  readonly down = new Linear(WIDTH, WIDTH);

  forward(x: Tensor, _?: Tensor, factors?: Tensor): Tensor {
    const y = dropout(this.down.call(gelu(this.up.call(x))), 0.3);
    return add(x, factors ? mul(y, factors) : y);
  }
}

type Pair = { readonly stream: Tensor; readonly update?: Tensor };

class PairBlock extends Module<[Pair], Pair> {
  readonly layer = new Linear(WIDTH, WIDTH);

  forward({ stream, update }: Pair): Pair {
    const sum = update ? add(stream, update) : stream;
    return { stream: sum, update: gelu(this.layer.call(sum)) };
  }
}

class Net extends Module<[Tensor], Tensor> {
  readonly blocks = Array.from({ length: BLOCKS }, () => new Block());
  readonly pairs = Array.from({ length: 2 }, () => new PairBlock());
  calls = 0;

  constructor(readonly recompute: boolean) {
    super();
  }

  forward(x: Tensor): Tensor {
    // Made and freed within this pass, like what comes of a batch.
    const factors = scale(full(x.device, x.shape, 'f32', 0.25), 3);
    const y = throughBlocks(this.blocks, x, this.recompute, undefined, factors);
    const { stream, update } = throughBlocks<Pair>(this.pairs, { stream: y }, this.recompute);
    return add(stream, update!);
  }
}

interface Seen {
  readonly gradients: number[][];
  /** Held between forward and backward. */
  readonly live: number;
  readonly host: number;
  readonly made: number;
}

function train(policy: CheckpointPolicy = {}, recompute = false): Seen {
  const model = new Net(recompute);
  const store = new LocalStore(model, device, { seed: 4 });
  let made = 0;
  const measured = scope(() => {
    const { tensor: x, leaf } = watch(
      tensor(
        device,
        Float32Array.from({ length: ROWS * WIDTH }, (_, i) => (i % 7) / 7 - 0.4),
        'f32',
        [ROWS, WIDTH],
      ),
    );
    const before = device.memory('activations').live;
    const run = () => scope(() => withRandom({ seed: 9, step: 2 }, () => model.call(x)));
    const y = withCheckpointPolicy({ ...policy, made: () => void made++ }, run);
    const [live, host] = [device.memory('activations').live - before, device.memory('host').live];
    backward(y, full(device, y.shape, 'f32', 1));
    const gradient = [...leaf.gradient!.readSync().data];
    leaf.gradient!.dispose();
    return { live, host, gradient };
  });
  const gradients = [...store.stateDict().keys()].map((name) => [...store.gradientOf(name)!.readSync().data]);
  store.dispose();
  const { live, host, gradient } = measured;
  return { gradients: [gradient, ...gradients], live, host, made };
}

describe('blocks', () => {
  const policies: Record<string, CheckpointPolicy> = {
    'recomputed one by one': { recompute: true },
    'every second one recomputed': { recompute: true, everyNth: 2 },
    'in two checkpoints': { recompute: true, checkpoints: 2 },
    'in more checkpoints than there are blocks': { recompute: true, checkpoints: 99 },
    'with inputs on the host': { recompute: true, onHost: true },
    'in two checkpoints with inputs on the host': { recompute: true, checkpoints: 2, onHost: true },
  };

  it.each(Object.entries(policies))('%s have the gradients of blocks that keep everything, and hold less', (_, policy) => {
    const kept = train();
    const recomputed = train(policy);
    expect(recomputed.gradients).toEqual(kept.gradients);
    expect(recomputed.live).toBeLessThan(kept.live);
    expect([kept.made, kept.host]).toEqual([0, 0]);
  });

  it('hold what a checkpoint was given, and no more', () => {
    // The first input is the caller's. Of pairs the first hands on what it was given, with an update; then there are the result and what all blocks share.
    expect(train({ recompute: true })).toMatchObject({ made: BLOCKS + 2, live: (BLOCKS - 1 + 1 + 1 + 1) * X + X });
    expect(train({ recompute: true, checkpoints: 2 })).toMatchObject({ made: 4, live: (1 + 1 + 1 + 1) * X + X });
    expect(train({ recompute: true, checkpoints: 1 })).toMatchObject({ made: 2, live: (1 + 1) * X + X });
    expect(train({ recompute: true, onHost: true })).toMatchObject({ live: 2 * X, host: (BLOCKS + 1 + 2) * X });
  });

  it('are recomputed as the model says where the run does not', () => {
    const { gradients, live } = train({ recompute: true });
    expect(train({}, true)).toMatchObject({ gradients, live, made: BLOCKS + 2 });
    expect(train({ recompute: false }, true)).toMatchObject({ gradients, made: 0 });
  });

  it('run once where no gradient is wanted, and free what one gave to the next', () => {
    const model = new Net(true);
    const store = new LocalStore(model, device);
    scope(() => {
      const x = full(device, [ROWS, WIDTH], 'f32', 0.5);
      device.resetPeaks();
      withCheckpointPolicy({ recompute: true, onHost: true }, () => noGrad(() => model.call(x)));
      // The caller's, two of the model's, and in a block its input and five more: no more of five blocks than of one.
      expect(device.memory('activations').peak).toBe((1 + 2 + 6) * X);
      expect(device.memory('host').peak).toBe(0);
    });
    store.dispose();
  });

  it('are timed by whoever asks', () => {
    const seen: CheckpointPhase[] = [];
    const around = <T>(phase: CheckpointPhase, work: () => T): T => {
      seen.push(phase);
      return work();
    };
    train({ recompute: true, checkpoints: 2, around });
    expect(seen).toEqual([...Array(4).fill('forward'), ...Array(4).fill('backward')]);
  });
});

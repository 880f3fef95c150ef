import { describe, expect, it } from 'vitest';
import { ReferenceBackend } from '../backend/reference-backend.js';
import { DeepSpeedError, ShapeError } from '../errors.js';
import { full, tensor, zeros } from '../tensor/create.js';
import { Device } from '../tensor/device.js';
import { scope } from '../tensor/scope.js';
import type { Tensor } from '../tensor/tensor.js';
import {
  add,
  attention,
  dropout,
  embedding,
  gelu,
  layerNorm,
  linear,
  linearCrossEntropy,
  matmul,
  mul,
  ops,
  rmsNorm,
  rope,
  softmax,
  swiglu,
} from './index.js';

const device = new Device(new ReferenceBackend());
const f32 = (...shape: number[]): Tensor => zeros(device, shape, 'f32');
const bf16 = (...shape: number[]): Tensor => zeros(device, shape, 'bf16');
const i32 = (...shape: number[]): Tensor => zeros(device, shape, 'i32');

// Each names the op, what it expected, and what it got.
const mistakes: [body: () => unknown, message: string][] = [
  [() => add(f32(2, 3), f32(3, 2)), '[add] expected b like f32[2, 3], got f32[3, 2]'],
  [() => add(f32(2), bf16(2)), '[add] expected b like f32[2], got bf16[2]'],
  [() => mul(i32(2), i32(2)), '[mul] expected a of a float dtype, got i32[2]'],
  [() => linear(f32(4, 3), [f32(5, 2)]), '[linear] expected weight 0 with 3 inputs for x [4, 3], got f32[5, 2]'],
  [() => linear(f32(4, 3), [f32(5, 3)], [], 'in_out'), '[linear] expected weight 0 with 3 inputs for x [4, 3], got f32[5, 3]'],
  [() => linear(f32(4, 3), [f32(5, 3), bf16(2, 3)]), '[linear] expected weight 1 of dtype f32, got bf16[2, 3]'],
  [() => linear(f32(4, 3), [f32(5, 3)], [f32(4)]), '[linear] expected bias 0 of 5 elements, got f32[4]'],
  [() => matmul(f32(2, 3), f32(2, 3)), '[matmul] expected inner sizes to agree, a has K = 3, got K = 2 in b [2, 3]'],
  [() => matmul(f32(7, 2, 3), f32(6, 3, 2)), '[matmul] expected b with batch axes [7] or none, got f32[6, 3, 2]'],
  [() => matmul(f32(3), f32(3, 2)), '[matmul] expected a with at least two axes, got f32[3]'],
  [() => embedding(f32(5), i32(2)), '[embedding] expected a table of shape [vocabulary, size], got f32[5]'],
  [() => embedding(f32(5, 2), f32(2)), '[embedding] expected ids of dtype i32, got f32[2]'],
  [() => layerNorm(f32(2, 3), f32(4), f32(3), { eps: 1e-5 }), '[layer_norm] expected w of shape [3], got f32[4]'],
  [
    () => layerNorm(f32(2, 3), f32(3), f32(3), { eps: 1e-5, residual: f32(3, 2) }),
    '[layer_norm] expected residual like f32[2, 3], got f32[3, 2]',
  ],
  [() => rmsNorm(f32(2, 3), f32(1, 3), { eps: 1e-5 }), '[rms_norm] expected w of shape [3], got f32[1, 3]'],
  [
    () => attention(f32(1, 2, 12), { heads: 3, kvHeads: 2, headDim: 2 }),
    '[attention] expected query heads to be a multiple of key heads, got 3 and 2',
  ],
  [
    () => attention(f32(1, 2, 12), { heads: 2, kvHeads: 1, headDim: 2 }),
    '[attention] expected qkv of shape [batch, tokens, 8], got f32[1, 2, 12]',
  ],
  [
    () => attention(f32(2, 3, 12), { heads: 2, headDim: 2, positions: i32(2, 4) }),
    '[attention] expected positions i32[2, 3], got i32[2, 4]',
  ],
  [
    () => attention(f32(2, 3, 12), { heads: 2, headDim: 2, positions: f32(2, 3) }),
    '[attention] expected positions i32[2, 3], got f32[2, 3]',
  ],
  [
    () => attention(f32(1, 3, 12), { heads: 2, headDim: 2, causal: false, positions: i32(1, 3) }),
    '[attention] expected a causal mask where positions tell documents apart, got causal false',
  ],
  [
    () => rope(f32(1, 3, 4), f32(3, 1), f32(3, 1), { rotatedHeads: 2, headDim: 2, positions: i32(3) }),
    '[rope] expected positions i32[1, 3], got i32[3]',
  ],
  [() => rope(f32(1, 2, 6), f32(2, 1), f32(2, 1), { rotatedHeads: 2, headDim: 3 }), '[rope] expected an even head size, got 3'],
  [
    () => rope(f32(1, 3, 4), f32(2, 1), f32(2, 1), { rotatedHeads: 2, headDim: 2 }),
    '[rope] expected a table of 3 positions at least, got f32[2, 1]',
  ],
  [() => swiglu(f32(2, 3)), '[swiglu] expected an even last axis, gate then up, got f32[2, 3]'],
  [() => gelu(i32(2), 'tanh'), '[gelu] expected x of a float dtype, got i32[2]'],
  [() => softmax(i32(2)), '[softmax] expected x of a float dtype, got i32[2]'],
  [() => linearCrossEntropy(f32(2, 3), f32(5, 4), i32(2)), '[linear_cross_entropy] expected w of shape [vocabulary, 3], got f32[5, 4]'],
  [() => linearCrossEntropy(f32(2, 3), f32(5, 3), i32(3)), '[linear_cross_entropy] expected 2 labels of dtype i32, got i32[3]'],
];

describe('an op', () => {
  it.each(mistakes)('refuses what does not fit (%#)', (body, message) => {
    scope(() => {
      let error: unknown;
      try {
        body();
      } catch (reason) {
        error = reason;
      }
      expect(error).toBeInstanceOf(ShapeError);
      expect((error as Error).message).toBe(message);
      // Nothing is returned: the scope frees what the failed call made.
    });
    expect(device.liveBuffers).toBe(0);
  });

  it('refuses tensors of two devices', () => {
    const other = new Device(new ReferenceBackend());
    scope(() => {
      expect(() => add(f32(2), zeros(other, [2], 'f32'))).toThrow(DeepSpeedError);
      expect(() => add(f32(2), zeros(other, [2], 'f32'))).toThrow('[add] all inputs must be on one device');
    });
  });

  it('takes tensors without elements', () => {
    scope(() => {
      expect(add(f32(0, 3), f32(0, 3)).shape).toEqual([0, 3]);
      expect(linear(f32(0, 3), [f32(2, 3)]).shape).toEqual([0, 2]);
      expect(embedding(f32(5, 2), i32(0)).shape).toEqual([0, 2]);
    });
  });

  it('that drops at random does nothing outside of training', () => {
    scope(() => {
      const x = full(device, [100], 'f32', 1);
      expect([...dropout(x, 0.5).readSync().data]).toEqual(Array(100).fill(1));
    });
  });

  it('counts no label that is ignored, and gives 0 when there is none', () => {
    scope(() => {
      const [x, w] = [tensor(device, [1, 2], 'f32', [2, 1]), tensor(device, [1, -1], 'f32', [2, 1])];
      const loss = (...labels: number[]) => linearCrossEntropy(x, w, tensor(device, labels, 'i32')).readSync().data[0]!;
      expect(loss(0, -100)).toBeCloseTo(Math.log(1 + Math.exp(-2)), 6);
      expect(loss(0, 1)).toBeCloseTo((Math.log(1 + Math.exp(-2)) + Math.log(1 + Math.exp(4))) / 2, 6);
      expect(loss(-100, -100)).toBe(0);
    });
  });
});

describe('the list of ops', () => {
  it('has each name once, as kernels find them by name', () => {
    const names = ops.map(({ name }) => name);
    expect(new Set(names).size).toBe(names.length);
    for (const name of names) expect(name).toMatch(/^[a-z][a-z0-9_]*$/);
  });
});

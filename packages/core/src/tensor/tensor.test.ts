import { describe, expect, it } from 'vitest';
import { ReferenceBackend } from '../backend/reference-backend.js';
import { DisposedError, ShapeError } from '../errors.js';
import { empty, fill, full, tensor, zeros } from './create.js';
import { Device } from './device.js';
import { decode, encode, hostTensor, rounded } from './host.js';
import { scope, unscoped } from './scope.js';
import type { Tensor } from './tensor.js';

const open = () => new Device(new ReferenceBackend());

describe('memory', () => {
  it('is counted by kind to the byte, live and at most', () => {
    const device = open();
    const weights = empty(device, [3, 5], 'bf16', { kind: 'parameters' });
    const x = empty(device, [7], 'f32');
    expect(device.memory('parameters')).toEqual({ live: 30, peak: 30 });
    expect(device.memory('activations')).toEqual({ live: 28, peak: 28 });
    expect(device.memory('gradients')).toEqual({ live: 0, peak: 0 });
    expect(device.backend.memory()).toMatchObject({ live: 58, peak: 58 });
    x.dispose();
    expect(device.memory('activations')).toEqual({ live: 0, peak: 28 });
    device.resetPeaks();
    expect(device.memory('activations')).toEqual({ live: 0, peak: 0 });
    expect(device.memory('parameters')).toEqual({ live: 30, peak: 30 });
    expect(device.describeLive()).toEqual([expect.stringMatching(/^30 bytes of parameters .*1 owners/)]);
    weights.dispose();
    expect(device.liveBuffers).toBe(0);
  });

  it('is freed when its last owner lets go', () => {
    const device = open();
    const x = zeros(device, [4], 'f32');
    const owners = [x.retain(), x.view([2, 2]), x.narrow(1, 2)];
    x.dispose();
    x.dispose();
    for (const owner of owners) {
      expect(device.liveBuffers).toBe(1);
      owner.dispose();
    }
    expect(device.liveBuffers).toBe(0);
  });

  it('may not be used after it was given back', () => {
    const device = open();
    const x = zeros(device, [4], 'f32');
    x.dispose();
    expect(x.isDisposed).toBe(true);
    for (const use of [() => x.view([4]), () => x.narrow(0, 1), () => x.retain(), () => x.readSync()]) {
      expect(use).toThrow(new DisposedError('tensor f32[4]'));
    }
    expect(() => x.buffer.release()).toThrow(DisposedError);
  });

  it('is given back by `using`', () => {
    const device = open();
    {
      using x = zeros(device, [4], 'f32');
      expect(x.isDisposed).toBe(false);
    }
    expect(device.liveBuffers).toBe(0);
  });
});

describe('a scope', () => {
  it('frees what was made in it and not returned, also inside arrays and records', () => {
    const device = open();
    const result = scope(() => {
      zeros(device, [1], 'f32');
      return { list: [zeros(device, [2], 'f32')], one: zeros(device, [3], 'f32'), nothing: null };
    });
    expect(device.liveBuffers).toBe(2);
    result.list[0]!.dispose();
    result.one.dispose();
    expect(device.liveBuffers).toBe(0);
  });

  it('gives its result to the scope around it', () => {
    const device = open();
    scope(() => {
      const inner = scope(() => zeros(device, [1], 'f32'));
      expect(inner.isDisposed).toBe(false);
    });
    expect(device.liveBuffers).toBe(0);
  });

  it('leaves alone what was made outside, kept, retained or unscoped', () => {
    const device = open();
    const outside = zeros(device, [1], 'f32');
    const kept: Tensor[] = [];
    scope(() => {
      kept.push(zeros(device, [1], 'f32').keep(), zeros(device, [1], 'f32').retain());
      kept.push(unscoped(() => zeros(device, [1], 'f32')));
      return outside;
    });
    expect(device.liveBuffers).toBe(4);
    for (const owner of [outside, ...kept]) owner.dispose();
    expect(device.liveBuffers).toBe(0);
  });

  it('frees everything when its body throws', () => {
    const device = open();
    const fail = () =>
      scope(() => {
        zeros(device, [1], 'f32');
        scope(() => zeros(device, [1], 'f32'));
        throw new Error('no');
      });
    expect(fail).toThrow('no');
    expect(device.liveBuffers).toBe(0);
  });

  it('refuses an asynchronous body, whose later tensors it would not see', () => {
    expect(() => scope(async () => {})).toThrow(/synchronous/);
  });
});

describe('views', () => {
  it('share storage', () => {
    const device = open();
    scope(() => {
      const x = tensor(device, [0, 1, 2, 3, 4, 5], 'f32', [3, 2]);
      const row = x.narrow(1, 1).view([2]);
      expect(row.readSync()).toEqual(hostTensor([2], 'f32', [2, 3]));
      fill(row, 9);
      expect([...x.readSync().data]).toEqual([0, 1, 9, 9, 4, 5]);
      expect(x.view([-1]).shape).toEqual([6]);
      expect(x.view([2, -1]).shape).toEqual([2, 3]);
      expect(x.narrow(3, 0).shape).toEqual([0, 2]);
    });
    expect(device.liveBuffers).toBe(0);
  });

  it('narrow at the right byte in every dtype, also of what was narrowed before', () => {
    const device = open();
    scope(() => {
      for (const dtype of ['f32', 'f16', 'bf16', 'i32', 'i64', 'u8', 'i8', 'bool'] as const) {
        const x = tensor(device, [0, 1, 0, 1, 1, 0, 0, 0], dtype, [4, 2]);
        expect([...x.narrow(1, 3).narrow(1, 1).readSync().data], dtype).toEqual([1, 0]);
      }
    });
  });

  it('refuse shapes that do not fit', () => {
    const device = open();
    scope(() => {
      const x = zeros(device, [3, 2], 'f32');
      expect(() => x.view([4])).toThrow(new ShapeError('view', 'a shape of 6 elements', '[4] for f32[3, 2]'));
      expect(() => x.view([4, -1])).toThrow(ShapeError);
      expect(() => x.narrow(2, 2)).toThrow(new ShapeError('narrow', 'rows within 0..3', '2..4 of [3, 2]'));
      expect(() => x.narrow(-1, 1)).toThrow(ShapeError);
      expect(() => full(device, [], 'f32', 1).narrow(0, 1)).toThrow(ShapeError);
    });
  });

  it('have one item or none', async () => {
    const device = open();
    using x = full(device, [1, 1], 'f32', 2.5);
    using y = zeros(device, [2], 'f32');
    expect(await x.item()).toBe(2.5);
    await expect(y.item()).rejects.toThrow('[item] expected one element, got [2]');
  });
});

describe('values on the host', () => {
  it('come back from bytes rounded to their dtype', () => {
    const cases = [
      ['f32', [0.1, -1e39, 16777217], [Math.fround(0.1), Number.NEGATIVE_INFINITY, 16777216]],
      ['f16', [0.1, 65520, 2 ** -25], [0.0999755859375, Number.POSITIVE_INFINITY, 0]],
      ['bf16', [0.1, 257, 1], [0.10009765625, 256, 1]],
      ['i32', [-(2 ** 31), 7, 2 ** 31 - 1], [-(2 ** 31), 7, 2 ** 31 - 1]],
      ['i64', [-(2 ** 53), 7, 2 ** 53], [-(2 ** 53), 7, 2 ** 53]],
      ['u8', [0, 7, 255], [0, 7, 255]],
      ['i8', [-128, 7, 127], [-128, 7, 127]],
      ['bool', [0, 7, 1], [0, 1, 1]],
    ] as const;
    for (const [dtype, values, expected] of cases) expect([...rounded(hostTensor([3], dtype, values)).data], dtype).toEqual(expected);
  });

  it('are decoded from any byte offset', () => {
    const bytes = encode(hostTensor([2], 'f32', [1.5, -2]));
    const shifted = new Uint8Array(bytes.byteLength + 1);
    shifted.set(bytes, 1);
    expect([...decode(shifted.subarray(1), [2], 'f32').data]).toEqual([1.5, -2]);
  });

  it('must be as many as the shape says', () => {
    expect(() => hostTensor([2, 2], 'f32', [1, 2, 3])).toThrow('expected 4 values for shape [2, 2], got 3');
  });
});

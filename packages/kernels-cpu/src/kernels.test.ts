import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { dtypes, type View } from '@deepspeed-ts/core';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type CpuBackend, cpuBackend } from './index.js';
import {
  adam,
  type Case,
  columns,
  exact,
  exponential,
  floats,
  integers,
  n,
  optimizers,
  products,
  slice,
  type Tensor,
  values,
  zeros,
} from './kernel-cases.js';

// What the op contract can't see: the bits. A value must not depend on threads, on where a tensor lies in memory, on how a flat
// range is cut (ZeRO cuts it differently at each stage) or on the machine's vector length.

let cpu: CpuBackend;
let threads: number;
beforeAll(() => {
  cpu = cpuBackend();
  threads = cpu.threads;
});
afterEach(() => {
  cpu.threads = threads;
  expect(cpu.memory().live).toBe(0);
});
afterAll(() => cpu.trim());

/** Runs a case with every tensor `shift` elements into its buffer; the outputs' bytes. */
function run({ op, inputs, outputs, attrs }: Case, shift = 0): Tensor[] {
  const handles: number[] = [];
  const place = ({ dtype, shape, bytes }: Tensor): View => {
    const byteOffset = shift * dtypes[dtype].bytes;
    const handle = cpu.allocate(byteOffset + bytes.length);
    handles.push(handle);
    cpu.write(handle, byteOffset, bytes);
    return { handle, byteOffset, dtype, shape: [...shape] };
  };
  try {
    const ins = inputs.map(place);
    const outs = outputs.map(place);
    cpu.launch(op, ins, outs, attrs);
    return outputs.map((tensor, i) => ({ ...tensor, bytes: cpu.readSync(outs[i]!.handle, outs[i]!.byteOffset, tensor.bytes.length) }));
  } finally {
    for (const handle of handles) cpu.free(handle);
  }
}

function hash(tensors: readonly Tensor[]): string {
  const sha = createHash('sha256');
  for (const { bytes } of tensors) sha.update(bytes);
  return sha.digest('hex').slice(0, 16);
}

const cases = { ...exact, ...exponential, ...products };
const names = Object.keys(cases);

describe('bits', () => {
  it.each(names)('%s gives the same on 1, 2 and 5 threads', (name) => {
    const results = [1, 2, 5].map((count) => {
      cpu.threads = count;
      return hash(run(cases[name]!));
    });
    expect(new Set(results).size).toBe(1);
  });

  it.each(names)('%s gives the same wherever its tensors lie in memory', (name) => {
    expect(new Set([0, 1, 3, 16].map((shift) => hash(run(cases[name]!, shift)))).size).toBe(1);
  });

  it.each(['add', 'accumulate', 'cast', ...Object.keys(optimizers), 'gelu', 'gelu by erf', 'gelu_backward'])(
    '%s gives each element the same when the range is cut',
    (name) => {
      const { inputs, outputs, ...rest } = cases[name]!;
      const whole = run(cases[name]!);
      for (const [from, length] of [
        [0, 5],
        [5, 1],
        [6, 33_000],
        [33_006, n - 33_006],
      ] as const) {
        const cut = (tensor: Tensor) => (tensor.shape[0] === n ? slice(tensor, from, length) : tensor);
        const part = run({ ...rest, inputs: inputs.map(cut), outputs: outputs.map(cut) });
        expect(hash(part)).toBe(hash(whole.map(cut)));
      }
    },
  );

  it('adamw streams a large range past the cache and gives it the bits of its parts', () => {
    const large = adam((1 << 20) + 77);
    const whole = run(large, 1);
    const half = 600_001;
    const cut = (tensor: Tensor) => (tensor.shape[0] === 1 ? tensor : slice(tensor, half, 100_000));
    const part = run({ ...large, inputs: large.inputs.map(cut), outputs: large.outputs.map(cut) });
    expect(hash(part)).toBe(hash(whole.map(cut)));
  });
});

describe('instruction sets', () => {
  const addon = process.env.DEEPSPEED_TS_NATIVE_PATH ?? fileURLToPath(new URL('../build/Release/kernels_cpu.node', import.meta.url));
  /** Runs all cases in a process that is held to an instruction set; hash of the outputs by name. */
  function hashes(isa: string): Record<string, string> {
    const script = `
      const n = require(${JSON.stringify(addon)});
      const { createHash } = require('node:crypto');
      const hashes = { isa: n.isa() };
      for (const [name, { op, inputs, outputs, attrs }] of Object.entries(JSON.parse(require('node:fs').readFileSync(0)))) {
        const words = [n.opId(op), inputs.length, outputs.length, attrs.length], handles = [], sha = createHash('sha256');
        for (const { code, shape, base64 } of [...inputs, ...outputs]) {
          const bytes = Buffer.from(base64, 'base64'), handle = n.alloc(bytes.length, false);
          n.write(handle, 0, bytes);
          handles.push([handle, bytes.length]);
          words.push(handle, 0, code, shape.length, ...shape);
        }
        words.push(...attrs);
        n.command.set(words);
        n.launch(words.length);
        for (const [handle, bytes] of handles.slice(inputs.length)) sha.update(n.readSync(handle, 0, bytes));
        hashes[name] = sha.digest('hex').slice(0, 16);
      }
      console.log(JSON.stringify(hashes));`;
    const encode = ({ dtype, shape, bytes }: Tensor) => ({
      code: dtypes[dtype].code,
      shape,
      base64: Buffer.from(bytes).toString('base64'),
    });
    const input = JSON.stringify(
      Object.fromEntries(
        Object.entries(cases).map(([name, c]) => [name, { ...c, inputs: c.inputs.map(encode), outputs: c.outputs.map(encode) }]),
      ),
    );
    const { stdout, stderr } = spawnSync(process.execPath, ['-e', script], {
      input,
      env: { ...process.env, DEEPSPEED_TS_CPU_ISA: isa },
      encoding: 'utf8',
      timeout: 60_000,
    });
    expect(stderr).toBe('');
    return JSON.parse(stdout) as Record<string, string>;
  }
  const pick = (all: Record<string, string>, from: object) => Object.fromEntries(Object.keys(from).map((name) => [name, all[name]]));

  it('agree to the bit wherever a kernel uses exactly rounded operations only', () => {
    const best = hashes('avx512');
    for (const isa of ['baseline', 'avx2']) expect(pick(hashes(isa), exact)).toEqual(pick(best, exact));
  });

  it('agree to the bit on exponentials where both have fused multiply-adds', () => {
    const [avx2, avx512] = [hashes('avx2'), hashes('avx512')];
    if (avx2.isa === 'baseline') return;
    expect(pick(avx2, exponential)).toEqual(pick(avx512, exponential));
  });
});

describe('values that are not numbers', () => {
  const spoiled = (tensor: Tensor, at: number, value: number): Tensor => {
    const data = floats(tensor);
    data[at] = value;
    return { ...tensor, bytes: new Uint8Array(data.buffer) };
  };

  it.each(['add', 'accumulate', 'gelu', 'gelu by erf', 'gelu_backward', ...Object.keys(optimizers)])(
    'come through %s at their place and nowhere else',
    (name) => {
      const { inputs, ...rest } = cases[name]!;
      for (const at of [0, 31, n - 1]) {
        const out = floats(run({ ...rest, inputs: [spoiled(inputs[0]!, at, Number.NaN), ...inputs.slice(1)] })[0]!);
        expect(out.findIndex(Number.isNaN)).toBe(at);
        expect(out.findLastIndex(Number.isNaN)).toBe(at);
      }
    },
  );

  it.each(['layer_norm', 'rms_norm', 'softmax'])('spoil their own row of %s and no other', (name) => {
    const { inputs, ...rest } = cases[name]!;
    const out = floats(run({ ...rest, inputs: [spoiled(inputs[0]!, 2 * columns + columns - 1, Number.NaN), ...inputs.slice(1)] })[0]!);
    expect([...out].map(Number.isNaN)).toEqual(Array.from(out, (_, i) => Math.floor(i / columns) === 2));
  });

  it('make sum_squares NaN or infinite, and grad_norm then says to skip the step', () => {
    for (const [value, norm] of [
      [Number.NaN, Number.NaN],
      [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY],
    ] as const) {
      const [sum] = run({ ...exact.sum_squares!, inputs: [spoiled(values([n], 1), 5000, value)] });
      expect(floats(sum!)[0]).toBe(norm);
      const [total, coefficient] = run({
        op: 'grad_norm',
        inputs: [sum!],
        outputs: [zeros('f32', [1]), zeros('f32', [1])],
        attrs: [1, 0.5],
      });
      expect(floats(total!)[0]).toBe(norm);
      expect(floats(coefficient!)[0]).toBeNaN();
    }
  });

  it.each(Object.keys(optimizers))('as the coefficient of %s leave weights and moments as they were', (name) => {
    const before = optimizers[name]!;
    const coefficient = { dtype: 'f32', shape: [1], bytes: new Uint8Array(Float32Array.of(Number.NaN).buffer) } as const;
    expect(hash(run({ ...before, inputs: [before.inputs[0]!, coefficient] }))).toBe(hash(before.outputs));
  });
});

describe('embedding', () => {
  it('refuses an id outside the table by position and value', () => {
    const table = values([50, 4], 1);
    expect(() => run({ op: 'embedding', inputs: [table, integers([3, 50])], outputs: [zeros('f32', [2, 4])], attrs: [] })).toThrow(
      /id 50 at position 1 is outside the table: expected 0 <= id < 50/,
    );
  });
});

import {
  apply,
  type Backend,
  backward,
  type Device,
  type FloatDType,
  fromHost,
  type HostTensor,
  hostTensor,
  isFloat,
  launch,
  mul,
  type Op,
  ops,
  Random,
  ReferenceBackend,
  rounded,
  type Sample,
  scope,
  type Tensor,
  watch,
} from '@deepspeed-ts/core';
import { expect, test } from 'vitest';
import { magnitudes } from './magnitudes.js';
import { withDevice } from './with-device.js';

/** Relative tolerance of a kernel against the reference: rounding of the storage dtype, times some room for sums. */
const TOLERANCE: Record<FloatDType, number> = { f32: 2e-5, f16: 4e-3, bf16: 3e-2 };

// biome-ignore lint/suspicious/noExplicitAny: ops differ in their attributes
type AnyOp = Op<any>;
type AnySample = Sample<Record<string, number>>;

export interface OpContractOptions {
  /** Ops and dtypes that the backend has no kernel for, with the reason. Everything else must be supported. */
  readonly gaps?: readonly { readonly op: string; readonly dtypes?: readonly FloatDType[]; readonly reason: string }[];
}

/** Tests every op of core on a backend: kernels against references, in every float dtype, on every sample of the op. */
export function opContract(name: string, open: () => Backend, { gaps = [] }: OpContractOptions = {}): void {
  for (const op of ops as readonly AnyOp[]) {
    for (const dtype of op.dtypes ?? (['f32', 'bf16', 'f16'] as const)) {
      const gap = gaps.find((entry) => entry.op === op.name && (entry.dtypes ?? [dtype]).includes(dtype));
      if (gap) {
        test.skip(`${name} has no ${op.name} kernel for ${dtype}: ${gap.reason}`);
        continue;
      }
      test(`${name} computes ${op.name} in ${dtype} as its reference does`, () =>
        withDevice(open(), (device) => {
          for (const sample of samplesOf(op)) compare(op, sample, dtype, device);
        }));
    }
  }
}

/** Tests the vjp of every op against central differences of its reference. */
export function gradientContract(): void {
  for (const op of (ops as readonly AnyOp[]).filter(({ vjp }) => vjp)) {
    test(`the gradient of ${op.name} is that of its reference by finite differences`, () =>
      withDevice(new ReferenceBackend(), (device) => {
        for (const sample of samplesOf(op)) checkGradients(op, sample, device);
      }));
  }
}

function samplesOf(op: AnyOp): AnySample[] {
  return op.samples(new Random()) as AnySample[];
}

function compare(op: AnyOp, sample: AnySample, dtype: FloatDType, device: Device): void {
  const { inputs, outputs } = typed(op, sample, dtype);
  const expected = outputs.map((host) => ({ ...host, data: host.data.slice() }));
  op.reference(
    inputs.map((host) => ({ ...host, data: host.data.slice() })),
    sample.attrs,
    expected,
  );
  scope(() => {
    const ins = inputs.map((host) => fromHost(device, host));
    const outs = outputs.map((host) => fromHost(device, host));
    const types = [...inputs, ...outputs].map((host) => host.dtype);
    const supported = op.compose !== undefined || device.backend.supports(op.name, types);
    expect(supported, `${device.name} supports ${op.name} on ${types.join(', ')}`).toBe(true);
    launch(op, ins, outs, sample.attrs);
    for (const [i, out] of outs.entries())
      expectClose(out.readSync(), expected[i]!, op, `${op.name}${sample.note ? ` (${sample.note})` : ''}, output ${i}`);
  });
}

/** Which dtypes inputs and outputs have when the op runs in `dtype`: `infer` on recast inputs tells for outputs. */
function typed(op: AnyOp, sample: AnySample, dtype: FloatDType): { inputs: HostTensor[]; outputs: HostTensor[] } {
  const keepsF32 = F32_INPUTS[op.name] ?? [];
  const inputs = sample.inputs.map((host, i) =>
    host.dtype === 'f32' && !keepsF32.includes(i) ? rounded({ ...host, dtype }) : rounded(host),
  );
  const inferred = op.infer(inputs, sample.attrs);
  const outputs = sample.outputs
    ? sample.outputs.map((host, i) => rounded(inferred[i] && host.dtype === 'f32' ? { ...host, dtype: inferred[i].dtype } : host))
    : inferred.map(({ shape, dtype: type }) => hostTensor(shape, type));
  return { inputs, outputs };
}

/** Inputs that are f32 whatever the op computes in: statistics, tables, scalars. */
const F32_INPUTS: Readonly<Record<string, readonly number[]>> = {
  rope: [1, 2],
  sample_token: [1],
  attention_backward: [3],
  head_norm_backward: [4],
  experts: [1],
  expert_swiglu: [1],
  expert_swiglu_backward: [2],
  layer_norm_backward: [3],
  rms_norm_backward: [3],
  load_balance: [0],
  load_balance_backward: [0, 1],
  route_backward: [0, 1],
  router_load_backward: [0],
  linear_cross_entropy_backward: [0, 4],
  linear_cross_entropy_fused_backward: [0, 1, 3],
  grad_norm: [0],
  fp8_matmul: [2, 3],
  linear_fp8: [1],
  mlp_fp8: [1, 2],
  adagrad: [1],
  adamw: [1],
  adamw_8bit: [1],
  decode_8bit: [1],
  dequantize: [1],
  lamb_moments: [1],
  lamb_ratio: [0, 1],
  lion: [1],
  muon_momentum: [1],
  normalize: [1],
  sgd: [1],
};

function expectClose(actual: HostTensor, expected: HostTensor, op: AnyOp, what: string): void {
  const exact = !isFloat(actual.dtype);
  const tolerance = exact ? 0 : Math.max(op.tolerance ?? 0, TOLERANCE[actual.dtype as FloatDType]);
  const magnitude = magnitudes(expected);
  for (let i = 0; i < expected.data.length; i++) {
    const [a, e] = [actual.data[i]!, expected.data[i]!];
    const close =
      Object.is(a, e) ||
      a === e ||
      (exact && Math.abs(a - e) <= (op.codeSteps ?? 0)) ||
      Math.abs(a - e) <= tolerance * (Math.abs(e) + magnitude(i));
    if (!close) expect.fail(`${what}: element ${i} of ${expected.data.length} is ${a}, reference ${e}`);
  }
}

function rms(values: Float64Array): number {
  const finite = values.filter(Number.isFinite);
  return Math.sqrt(finite.reduce((sum, v) => sum + v * v, 0) / Math.max(finite.length, 1));
}

/** vjp on the reference backend against central differences of sum(weights * reference), for every differentiable input. */
function checkGradients(op: AnyOp, sample: AnySample, device: Device): void {
  const wanted = sample.differentiable ?? sample.inputs.flatMap((host, i) => (isFloat(host.dtype) ? [i] : []));
  if (wanted.length === 0) return;
  const random = new Random(99);
  const specs = op.infer(sample.inputs, sample.attrs);
  // Only the first output and a residual's sum carry gradients; statistics do not.
  const flows = specs.map((spec, i) => i === 0 || sameShape(spec.shape, specs[0]!.shape));
  const weights = specs.map(({ shape }) => random.randn(...shape));
  const value = (inputs: HostTensor[]) => {
    const outputs = specs.map(({ shape, dtype }) => hostTensor(shape, dtype));
    op.reference(inputs, sample.attrs, outputs);
    return outputs.reduce((sum, out, o) => (flows[o] ? sum + out.data.reduce((s, v, i) => s + v * weights[o]!.data[i]!, 0) : sum), 0);
  };
  scope(() => {
    const watched = sample.inputs.map((host, i) => {
      const tensor = fromHost(device, host);
      return wanted.includes(i) ? watch(tensor) : { tensor, leaf: undefined };
    });
    const outputs = apply(
      op,
      watched.map(({ tensor }) => tensor),
      sample.attrs,
    );
    total(outputs.flatMap((out, o) => (flows[o] ? [mul(out, fromHost(device, { ...weights[o]!, dtype: out.dtype }))] : [])));
    for (const i of wanted) {
      const gradient = watched[i]!.leaf!.gradient;
      expect(gradient, `${op.name} gives input ${i} a gradient`).toBeDefined();
      const analytic = gradient!.readSync().data;
      gradient!.dispose();
      const numeric = analytic.map((_, j) => difference(value, sample.inputs, i, j));
      const magnitude = Math.max(rms(numeric), 1e-6);
      for (const [j, n] of numeric.entries()) {
        const close = Math.abs(analytic[j]! - n) <= 2e-4 * (Math.abs(n) + magnitude);
        if (!close)
          expect.fail(`${op.name}${sample.note ? ` (${sample.note})` : ''}: d input ${i}[${j}] is ${analytic[j]}, by differences ${n}`);
      }
    }
  });
}

/** Back-propagates ones through each weighted output; gradients of shared inputs add up in the leaves' graph. */
function total(weighted: Tensor[]): void {
  const sum = weighted.reduce((a, b) => apply(ops.find(({ name }) => name === 'add')!, [a, b], {})[0]!);
  const ones = fromHost(sum.device, hostTensor(sum.shape, sum.dtype, new Float64Array(sum.numel).fill(1)));
  backward(sum, ones);
}

function difference(value: (inputs: HostTensor[]) => number, inputs: HostTensor[], i: number, j: number): number {
  const h = 1e-4;
  const moved = (by: number) => {
    const copy = inputs.map((host, k) => (k === i ? { ...host, data: host.data.slice() } : host));
    copy[i]!.data[j]! += by;
    return value(copy);
  };
  return (moved(h) - moved(-h)) / (2 * h);
}

function sameShape(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((size, i) => size === b[i]);
}

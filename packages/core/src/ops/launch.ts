import type { DType } from '../dtype.js';
import { executionObserver } from '../observe.js';
import { encode } from '../tensor/host.js';
import type { Tensor } from '../tensor/tensor.js';
import type { Attrs, Op } from './define-op.js';

/**
 * Queues an op on existing outputs, outside autograd. Where the backend has no kernel for it, it is composed of other ops, or
 * the reference runs on the host: right, but it waits for the device.
 */
export function launch<A extends Attrs>(op: Op<A>, inputs: readonly Tensor[], outputs: readonly Tensor[], attrs: A): void {
  const first = outputs[0]!;
  const backend = first.device.backend;
  const types: DType[] = [];
  for (const tensor of inputs) {
    tensor.assertAlive();
    types.push(tensor.dtype);
  }
  let work = false;
  for (const tensor of outputs) {
    tensor.assertAlive();
    types.push(tensor.dtype);
    work ||= tensor.numel > 0;
  }
  if (!work) return;
  const values: number[] = [];
  for (const key of op.attrs) values.push(attrs[key]!);
  if (backend.supports(op.name, types)) {
    executionObserver()?.launched(op.name, inputs, outputs, attrs);
    backend.launch(op.name, inputs, outputs, values);
    return;
  }
  if (op.compose) {
    op.compose(inputs, attrs, outputs);
    return;
  }
  executionObserver()?.launched(op.name, inputs, outputs, attrs);
  const results = outputs.map((tensor) => tensor.readSync());
  op.reference(
    inputs.map((tensor) => tensor.readSync()),
    attrs,
    results,
  );
  for (const [i, tensor] of outputs.entries()) backend.write(tensor.handle, tensor.byteOffset, encode(results[i]!));
}

import type { Construct, Constructors } from '../pickle/machine.js';
import { pythonConstructors } from '../pickle/python.js';
import { describePickled, isTuple, PickleGlobal, type PickleValue } from '../pickle/values.js';
import { dtypeOfTorch } from './dtypes.js';
import { TorchStorage, TorchTensor } from './tensor.js';

const MAX_AXES = 64;

const size: Construct = ([sizes = []], fail) => (isSizes(sizes) ? sizes : fail(`expected sizes, got ${describePickled(sizes)}`));

/** `_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks, metadata)`, and what came before with fewer arguments. */
const tensor: Construct = ([storage, offset, shape, strides], fail) => {
  if (!(storage instanceof TorchStorage)) return fail(`expected a storage, got ${describePickled(storage)}`);
  if (!storage.dtype) return fail('a tensor of a storage without a dtype');
  return rebuild(storage, storage.dtype, offset, shape, strides, fail);
};

/** `_rebuild_tensor_v3(storage, offset, size, stride, requires_grad, hooks, dtype, metadata)`, for dtypes without storages of their own. */
const typedTensor: Construct = ([storage, offset, shape, strides, , , type], fail) => {
  if (!(storage instanceof TorchStorage)) return fail(`expected a storage, got ${describePickled(storage)}`);
  const dtype = type instanceof PickleGlobal && type.module === 'torch' ? dtypeOfTorch(type.name) : undefined;
  if (!dtype) return fail(`tensors of ${describePickled(type)} are not supported`);
  return rebuild(storage, dtype, offset, shape, strides, fail);
};

/** `_rebuild_parameter(data, requires_grad, hooks, state)`. */
const parameter: Construct = ([data], fail) =>
  data instanceof TorchTensor ? data : fail(`expected a tensor, got ${describePickled(data)}`);

/** `_rebuild_from_type_v2(function, type, args, state)`: a tensor with attributes, such as the ids that DeepSpeed hangs on parameters. */
const fromType: Construct = ([build, , args], fail) => {
  const known = build instanceof PickleGlobal ? torchTensors.get(String(build)) : undefined;
  if (!known || !isTuple(args as PickleValue)) return fail(`tensors made by ${describePickled(build)} are not supported`);
  return known(args as readonly PickleValue[], fail);
};

const torchTensors = new Map<string, Construct>([
  ['torch._utils._rebuild_tensor', tensor],
  ['torch._utils._rebuild_tensor_v2', tensor],
  ['torch._utils._rebuild_tensor_v3', typedTensor],
  ['torch._utils._rebuild_parameter', parameter],
  ['torch._utils._rebuild_parameter_with_state', parameter],
  ['torch._tensor._rebuild_from_type_v2', fromType],
  ['torch._tensor._rebuild_from_type', fromType],
]);

/** What `torch.save` writes, besides plain data. */
export const torchConstructors: Constructors = new Map([...pythonConstructors, ...torchTensors, ['torch.Size', size]]);

function rebuild(
  storage: TorchStorage,
  dtype: TorchTensor['dtype'],
  offset: PickleValue | undefined,
  shape: PickleValue | undefined,
  strides: PickleValue | undefined,
  fail: (detail: string) => never,
): TorchTensor {
  if (!isSizes([offset ?? null]) || !isSizes(shape) || !isSizes(strides) || shape.length !== strides.length || shape.length > MAX_AXES) {
    return fail(`expected an offset, a shape and strides, got ${[offset, shape, strides].map(describePickled).join(', ')}`);
  }
  return new TorchTensor(dtype, shape, strides, offset as number, storage);
}

function isSizes(value: PickleValue | undefined): value is readonly number[] {
  return Array.isArray(value) && value.every((size) => Number.isSafeInteger(size) && (size as number) >= 0);
}

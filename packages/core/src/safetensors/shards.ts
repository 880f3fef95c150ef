/** As large as Hugging Face makes files of weights. */
export const SHARD_BYTES = 5e9;

/** `model.safetensors`, or `model-00002-of-00004.safetensors` as Hugging Face numbers them from 1. */
export function shardName(kind: 'model' | 'adapter_model' | 'optimizer', index: number, count: number): string {
  const digits = (n: number) => String(n).padStart(5, '0');
  return count === 1 && kind !== 'optimizer' ? `${kind}.safetensors` : `${kind}-${digits(index + 1)}-of-${digits(count)}.safetensors`;
}

/** Sorts tensors into files of at most so many bytes, in order, each as full as it may be; a larger tensor gets a file of its own. */
export function packShards<T>(tensors: readonly T[], sizeOf: (tensor: T) => number, limit: number): T[][] {
  const shards: T[][] = [];
  let room = 0;
  for (const tensor of tensors) {
    const size = sizeOf(tensor);
    if (shards.length === 0 || size > room) {
      shards.push([]);
      room = limit;
    }
    shards.at(-1)!.push(tensor);
    room -= size;
  }
  return shards;
}
